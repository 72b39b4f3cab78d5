package intake

// Check checks lines as Create does, without a Ledger: it cannot find out that a payment already
// exists. It returns one answer per line, in order; the Result of a correct payment is empty.
func (in *Intake) Check(lines []Line) []Answer { return in.check(lines).answers }

// Refuse checks lines as Create does, and answers Failed for the correct payments: nothing is
// recorded.
func (in *Intake) Refuse(lines []Line, cause error) []Answer {
	answers := in.Check(lines)
	for i := range answers {
		if answers[i].Result == "" {
			answers[i].fail(cause)
		}
	}
	return answers
}
