package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// Names under which processor time is kept beside those of the processes of
// the stack.
const (
	generator    = "generator"     // this process
	wholeMachine = "whole machine" // all processes
)

// cpuTimes returns what each process of the stack, the load generator and the
// whole machine have used so far.
func (s *stack) cpuTimes() (map[string]time.Duration, error) {
	all, err := machineTime()
	if err != nil {
		return nil, err
	}
	times := map[string]time.Duration{wholeMachine: all}
	pids := map[string]int{generator: os.Getpid()}
	for _, p := range s.processes {
		pids[p.name] = p.PID()
	}
	for name, pid := range pids {
		if times[name], err = proc.CPUTime(pid); err != nil {
			return nil, fmt.Errorf("CPU time of %s: %w", name, err)
		}
	}
	return times, nil
}

// spent returns what was used between two readings, and which share of the
// machine's processor time processes that have nothing to do with us took in
// the meantime, or the host took from a virtual machine.
func spent(before, after map[string]time.Duration, elapsed time.Duration) (cpu map[string]time.Duration, others float64) {
	cpu = make(map[string]time.Duration, len(after))
	foreign := after[wholeMachine] - before[wholeMachine]
	for name, used := range after {
		if name != wholeMachine {
			cpu[name] = used - before[name]
			foreign -= cpu[name]
		}
	}
	if elapsed <= 0 {
		return cpu, 0
	}
	share := foreign.Seconds() / elapsed.Seconds() / float64(runtime.NumCPU())
	return cpu, min(max(share, 0), 1) // less than nothing: clocks tick at different moments
}

// machineTime returns the time that all processors together have been busy.
func machineTime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseMachineTime(string(text))
}

// parseMachineTime adds user, nice, system and steal of the first line of
// proc_stat(5). Interrupts are left out: they are nobody's, or counted as the
// time of the process that they interrupt.
func parseMachineTime(stat string) (time.Duration, error) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture that Go knows
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("unexpected form of /proc/stat: %q", line)
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 8} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("unexpected form of /proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}
