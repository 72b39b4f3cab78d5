package intake

// Valid is the result of a payment that Check found nothing wrong with.
const Valid Result = "valid"

// Check checks lines as Create does, without a Ledger: it cannot find out that a payment already
// exists. It returns one answer per line, in order.
func (in *Intake) Check(lines []Line) []Answer {
	answers := in.check(lines).answers
	for i := range answers {
		if answers[i].Result == "" {
			answers[i].Result = Valid
		}
	}
	return answers
}
