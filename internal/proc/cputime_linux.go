package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// CPUTime returns the processor time that a process has used so far, user and
// system, all its threads and those of its children that have ended. The
// kernel counts in steps of 10 ms.
func CPUTime(pid int) (time.Duration, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	stat, err := os.ReadFile(path) //nolint:gosec // G304: /proc/<number>/stat
	if err != nil {
		return 0, err
	}
	return parseStat(stat)
}

// parseStat adds utime, stime, cutime and cstime of proc_pid_stat(5), fields
// 14 to 17. The second field is the program's name in parentheses and can hold
// anything, spaces and parentheses included, so fields are counted from the
// last one.
func parseStat(stat []byte) (time.Duration, error) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture that Go knows
	_, rest, found := lastCut(stat, ')')
	fields := bytes.Fields(rest) // from field 3 on
	if !found || len(fields) < 15 {
		return 0, fmt.Errorf("unexpected form of /proc/PID/stat: %q", stat)
	}
	var ticks int64
	for _, field := range fields[11:15] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("unexpected form of /proc/PID/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

func lastCut(b []byte, sep byte) (before, after []byte, found bool) {
	i := bytes.LastIndexByte(b, sep)
	if i < 0 {
		return b, nil, false
	}
	return b[:i], b[i+1:], true
}
