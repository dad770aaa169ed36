package audit

// Tear has the log know that its last line was cut off.
func (l *Log) Tear() { l.torn = true }
