package intake

// Check checks lines as Create does, without a Ledger: it cannot find out that a payment already
// exists. It returns one answer per line, in order; the Result of a correct payment is empty.
func (in *Intake) Check(lines []Line) []Answer { return in.check(lines).answers }
