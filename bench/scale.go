package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// What grows with replicas, sessions and writes? Redis announces each write of
// a session to every replica, so writes times replicas is what it costs. -scale
// measures that with a real Redis and some replicas (replica.go): what a write
// costs, how soon it is known, and how much of both Redis can bear; and how much
// memory a session takes in Redis.

// scaleOptions say how much of it.
type scaleOptions struct {
	replicas []int         // numbers of them that are compared
	rates    []int         // writes per second
	sessions int           // whose memory is measured
	rounds   int           // in each of which everything is measured once
	window   time.Duration // of one measurement
	seed     uint64        // of the order
}

// What -scale does unless told otherwise: about three minutes.
const (
	scaleReplicas = "0,1,2,4,8"
	scaleRates    = "1000,5000,10000,20000,50000,100000,200000"
	scaleRounds   = 3
	scaleWindow   = time.Second
	scaleSessions = 20_000
)

const (
	mostReplicas = 64
	mostRate     = 1_000_000

	// written sessions are in the caches of all replicas.
	scaleWritten = 10_000

	// drainTime is how long replicas may take to work off what was written.
	drainTime = 30 * time.Second
)

// namedReplica is one of them as this process sees it.
type namedReplica struct {
	namedProcess
	url string
}

// scaleBench is what runs.
type scaleBench struct {
	o        scaleOptions
	redis    *proc.Redis
	rdb      *redis.Client
	replicas []namedReplica
}

// runScale measures all of it. What it starts ends with it. With an error there
// may be a report all the same.
func runScale(ctx context.Context, o scaleOptions, dir string, progress io.Writer) (r *report, err error) {
	s := &scaleBench{o: o}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.start(ctx, dir); err != nil {
		return nil, err
	}
	r = &report{
		Started: time.Now().UTC().Truncate(time.Second),
		Machine: hostMachine(),
		Users:   scaleWritten,
		Rounds:  o.rounds,
		Seed:    o.seed,
		Scale:   &scaleReport{Window: o.window.Seconds()},
	}
	r.Machine.Redis = redisVersion(ctx, s.redis.Addr)
	if err := s.measureRounds(ctx, r.Scale, progress); err != nil {
		return nil, err
	}
	if r.Scale.Beats, err = s.measureBeats(ctx); err != nil {
		return nil, fmt.Errorf("heartbeats: %w", err)
	}
	if r.Scale.Memory, err = measureRedisMemory(ctx, o.sessions, dir); err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	fmt.Fprintf(progress, "memory: %.0f bytes per session in Redis\n", r.Scale.Memory.session())
	r.Scale.summarize()
	return r, nil
}

// start starts Redis, with the sessions that are written, and as many replicas
// as are needed at most. None of them listens yet.
func (s *scaleBench) start(ctx context.Context, dir string) (err error) {
	if s.redis, err = proc.StartRedis(ctx, proc.RedisOptions{Dir: dir}); err != nil {
		return err
	}
	s.rdb = redis.NewClient(&redis.Options{Addr: s.redis.Addr, PoolSize: 1})
	w, err := newWriter(ctx, s.redis.Addr, writeSet, scaleWritten+1, time.Now())
	if err != nil {
		return err
	}
	_, err = w.run(ctx, 1, once(scaleWritten+1))
	if err = errors.Join(err, w.close()); err != nil {
		return fmt.Errorf("store the sessions: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for i := range slices.Max(s.o.replicas) {
		p, err := proc.Start(ctx, self, []string{replicaCommand, "127.0.0.1:0", s.redis.Addr, fmt.Sprint(scaleWritten)}, proc.Options{})
		if err != nil {
			return err
		}
		r := namedReplica{namedProcess: namedProcess{fmt.Sprintf("replica %d", i+1), p}}
		s.replicas = append(s.replicas, r)
		listens, err := awaitListening(ctx, p)
		if err != nil {
			return err
		}
		s.replicas[i].url = "http://" + listens
	}
	return nil
}

// once is a batch, and no further one.
func once(n int) func() (int, bool) {
	done := false
	return func() (int, bool) {
		first := !done
		done = true
		return n, first
	}
}

func (s *scaleBench) stop() error {
	var errs []error
	for _, r := range s.replicas {
		errs = append(errs, r.Stop())
	}
	if s.rdb != nil {
		errs = append(errs, s.rdb.Close())
	}
	if s.redis != nil {
		errs = append(errs, s.redis.Stop())
	}
	return errors.Join(errs...)
}

// tell has a replica do something.
func (r namedReplica) tell(ctx context.Context, path string) (replicaState, error) {
	var st replicaState
	text, err := fetch(ctx, r.url+path)
	if err == nil {
		err = json.Unmarshal([]byte(text), &st)
	}
	if err != nil {
		return st, fmt.Errorf("%s: %w", r.name, err)
	}
	return st, nil
}

func tellAll(ctx context.Context, replicas []namedReplica, path string) (states []replicaState, err error) {
	for _, r := range replicas {
		st, err := r.tell(ctx, path)
		if err != nil {
			return states, err
		}
		states = append(states, st)
	}
	return states, nil
}

// listening has the first n replicas listen, and no others.
func (s *scaleBench) listening(ctx context.Context, n int) ([]namedReplica, error) {
	for i, r := range s.replicas {
		path := pathSilent
		if i < n {
			path = pathListen
		}
		if _, err := r.tell(ctx, path); err != nil {
			return nil, err
		}
	}
	return s.replicas[:n], nil
}

// measureRounds measures what writes cost, and how soon they are known. In each
// round the numbers of replicas come in an order of their own; rates go up until
// one is not kept.
func (s *scaleBench) measureRounds(ctx context.Context, r *scaleReport, progress io.Writer) error {
	for _, n := range s.o.replicas {
		for _, write := range scaleWrites {
			r.Writes = append(r.Writes, writeRow{Write: write, Replicas: n})
		}
		for _, rate := range s.o.rates {
			if n > 0 {
				r.Rates = append(r.Rates, rateRow{Replicas: n, Rate: rate})
			}
		}
	}
	// The first time, every replica fills its cache.
	if _, err := s.listening(ctx, len(s.replicas)); err != nil {
		return err
	}
	order := rand.New(rand.NewPCG(s.o.seed, 0)) //nolint:gosec // G404: shuffles measurements
	for round := range s.o.rounds {
		for _, i := range order.Perm(len(r.Writes)) {
			row := &r.Writes[i]
			c, err := s.measureWrite(ctx, row.Write, row.Replicas)
			if err != nil {
				return fmt.Errorf("%s, %d replicas: %w", row.Write, row.Replicas, err)
			}
			row.Rounds = append(row.Rounds, c)
			fmt.Fprintf(progress, "round %d/%d  %-16s  %d replicas  %7.0f writes/s  Redis %s µs each\n",
				round+1, s.o.rounds, row.Write, row.Replicas, c.PerSecond, digits(c.Redis))
		}
		for _, k := range order.Perm(len(s.o.replicas)) {
			if err := s.measureRates(ctx, r, s.o.replicas[k], func(row *rateRow, f rateFigures) {
				fmt.Fprintf(progress, "round %d/%d  %d replicas  %6d writes/s asked, %6.0f made  p99 %s ms  Redis %.0f %%\n",
					round+1, s.o.rounds, row.Replicas, row.Rate, f.PerSecond, digits(f.P99), f.Redis)
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// measureRates measures all rates with one number of replicas.
func (s *scaleBench) measureRates(ctx context.Context, r *scaleReport, replicas int, tell func(*rateRow, rateFigures)) error {
	for i := range r.Rates {
		row := &r.Rates[i]
		if row.Replicas != replicas {
			continue
		}
		f, err := s.measureRate(ctx, row.Rate, replicas)
		if err != nil {
			return fmt.Errorf("%d writes/s, %d replicas: %w", row.Rate, row.Replicas, err)
		}
		row.Rounds = append(row.Rounds, f)
		tell(row, f)
		if !f.kept(row.Rate) {
			return nil
		}
	}
	return nil
}

// usage is processor time by name.
type usage map[string]time.Duration

const redisName = "redis"

// cpu returns what Redis, these replicas, this process and the machine have used
// so far.
func (s *scaleBench) cpu(replicas []namedReplica) (usage, error) {
	pids := map[string]int{redisName: s.redis.PID(), generator: os.Getpid()}
	for _, r := range replicas {
		pids[r.name] = r.PID()
	}
	all, err := machineTime()
	if err != nil {
		return nil, err
	}
	used := usage{wholeMachine: all}
	for name, pid := range pids {
		if used[name], err = proc.CPUTime(pid); err != nil {
			return nil, fmt.Errorf("CPU time of %s: %w", name, err)
		}
	}
	return used, nil
}

// scaleShown is what happened while some writes were made.
type scaleShown struct {
	written
	cpu    usage   // until everything was worked off
	took   float64 // s, until then
	others float64
	busy   float64        // share of the machine that was used, by whomever
	before []replicaState // of each replica
	after  []replicaState
	lost   int64
}

// measured has the replicas listen, makes the writes, and waits until all of
// them are known.
func (s *scaleBench) measured(ctx context.Context, write string, n int, do func(*writer) (written, error)) (got scaleShown, err error) {
	replicas, err := s.listening(ctx, n)
	if err != nil {
		return got, err
	}
	w, err := newWriter(ctx, s.redis.Addr, write, scaleWritten, time.Now())
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if got.before, err = tellAll(ctx, replicas, pathBegin); err != nil {
		return got, err
	}
	runtime.GC() // now, not in the middle of it
	before, err := s.cpu(replicas)
	if err != nil {
		return got, err
	}
	began := time.Now()
	if got.written, err = do(w); err != nil {
		return got, err
	}
	if err := drained(ctx, replicas, got.before, got.count()); err != nil {
		return got, err
	}
	took := time.Since(began)
	after, err := s.cpu(replicas)
	if err != nil {
		return got, err
	}
	got.took = took.Seconds()
	got.busy = (after[wholeMachine] - before[wholeMachine]).Seconds() / got.took / float64(runtime.NumCPU())
	cpu, others := spent(before, after, took)
	got.cpu, got.others = cpu, others
	got.after, err = tellAll(ctx, replicas, pathEnd)
	for i, st := range got.after {
		got.lost += st.Lost - got.before[i].Lost
	}
	return got, err
}

// drained waits until replicas have worked off so many announcements, or have
// lost some, after which they count on nothing that they knew.
func drained(ctx context.Context, replicas []namedReplica, before []replicaState, count int64) error {
	const every = 2 * time.Millisecond
	deadline := time.Now().Add(drainTime)
	for i, r := range replicas {
		for {
			st, err := r.tell(ctx, pathState)
			if err != nil {
				return err
			}
			heard := st.Dropped - before[i].Dropped
			if heard >= count || st.Lost > before[i].Lost {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s heard of %d writes of %d", r.name, heard, count)
			}
			if !pause(ctx, every) {
				return ctx.Err()
			}
		}
	}
	return nil
}

// perReplica is the mean of what the replicas used.
func (w scaleShown) perReplica() time.Duration {
	var sum time.Duration
	for name, used := range w.cpu {
		if name != redisName && name != generator {
			sum += used
		}
	}
	return sum / time.Duration(max(len(w.after), 1))
}

// measureWrite measures what a write costs where as many are made as fit.
func (s *scaleBench) measureWrite(ctx context.Context, write string, n int) (writeFigures, error) {
	got, err := s.measured(ctx, write, n, func(w *writer) (written, error) {
		if write == writeSingle {
			return w.single(ctx, s.o.window)
		}
		return w.flood(ctx, s.o.window)
	})
	if err != nil {
		return writeFigures{}, err
	}
	each := func(used time.Duration) float64 { return micros(used) / float64(max(got.count(), 1)) }
	return writeFigures{
		Writes: got.count(), PerSecond: got.perSecond(), Lost: got.lost, Others: got.others,
		Redis: each(got.cpu[redisName]), Replica: each(got.perReplica()), Writer: each(got.cpu[generator]),
	}, nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// measureRate measures at a steady rate how soon writes are known, and what that
// takes.
func (s *scaleBench) measureRate(ctx context.Context, rate, n int) (rateFigures, error) {
	got, err := s.measured(ctx, writeSet, n, func(w *writer) (written, error) { return w.steady(ctx, float64(rate), s.o.window) })
	if err != nil {
		return rateFigures{}, err
	}
	const percent = 100
	ofCore := func(used time.Duration) float64 { return percent * used.Seconds() / got.took }
	f := rateFigures{
		PerSecond: got.perSecond(), Lost: got.lost, Others: got.others,
		Redis: ofCore(got.cpu[redisName]), Replica: ofCore(got.perReplica()), Busy: percent * got.busy,
	}
	var delays []delay
	var asked, answered int64
	for i, st := range got.after {
		delays = append(delays, delaysOf(got.acked, st.Marks, got.before[i].Dropped)...)
		asked += st.Asked
		answered += st.Answered
	}
	f.Answered = percent * float64(answered) / float64(max(asked, 1))
	f.P50, f.P99, f.Max = ms(delayAt(delays, 0.5)), ms(delayAt(delays, 0.99)), ms(delayAt(delays, 1))
	return f, nil
}

// delay is how long after their acknowledgement some writes were known.
type delay struct {
	after  time.Duration
	writes int64
}

// delaysOf sets the moments at which writes were acknowledged beside those at
// which a replica, which had dropped base before, had dropped what they are
// about. Writes that are acknowledged together count as known when the last of
// them is; those that never were are left out. What is known before its
// acknowledgement has no delay: Redis sends announcements first.
func delaysOf(acked, dropped []mark, base int64) []delay {
	var all []delay
	var before int64
	at := 0
	for _, a := range acked {
		for at < len(dropped) && dropped[at].Count-base < a.Count {
			at++
		}
		if at == len(dropped) {
			break
		}
		after := max(time.Duration(dropped[at].At-a.At), 0)
		all = append(all, delay{after, a.Count - before})
		before = a.Count
	}
	return all
}

// delayAt returns the delay that the share q of the writes did not exceed. It
// sorts its argument.
func delayAt(delays []delay, q float64) time.Duration {
	slices.SortFunc(delays, func(a, b delay) int { return int(a.after - b.after) })
	var sum int64
	for _, d := range delays {
		sum += d.writes
	}
	var seen int64
	for _, d := range delays {
		seen += d.writes
		if float64(seen) >= q*float64(sum) {
			return d.after
		}
	}
	return 0
}

// measureBeats measures what replicas cost that have nothing to do.
func (s *scaleBench) measureBeats(ctx context.Context) (beatsReport, error) {
	n := len(s.replicas)
	b := beatsReport{Replicas: n}
	if n == 0 {
		return b, nil
	}
	replicas, err := s.listening(ctx, n)
	if err != nil {
		return b, err
	}
	before, err := executed(ctx, s.rdb)
	if err != nil {
		return b, err
	}
	cpuBefore, err := s.cpu(replicas)
	if err != nil {
		return b, err
	}
	began := time.Now()
	if !pause(ctx, 3*s.o.window) { // longer, since there is so little
		return b, ctx.Err()
	}
	seconds := time.Since(began).Seconds()
	cpuAfter, err := s.cpu(replicas)
	if err != nil {
		return b, err
	}
	after, err := executed(ctx, s.rdb)
	if err != nil {
		return b, err
	}
	b.Commands = float64(sum(commandsBetween(before, after))) / seconds / float64(n)
	const percent = 100
	b.Redis = percent * (cpuAfter[redisName] - cpuBefore[redisName]).Seconds() / seconds / float64(n)
	for _, r := range replicas {
		b.Replica += percent * (cpuAfter[r.name] - cpuBefore[r.name]).Seconds() / seconds / float64(n)
	}
	return b, nil
}
