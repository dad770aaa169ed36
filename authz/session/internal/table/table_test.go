package table

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func id(i int) Name { return Name{'s', fmt.Sprint("name-", i)} }

func keep(t *Table, n Name, value string, deadline int64, epoch uint32) bool {
	return t.End(t.Begin(n), []byte(value), deadline, epoch)
}

func get(t *Table, n Name, now int64, epoch uint32) (string, bool) {
	value, _, ok := t.Get(n, now, epoch, nil)
	return string(value), ok
}

func TestAValueHoldsUntilItsDeadlineInItsEpoch(t *testing.T) {
	table := New(10, 600)
	require.True(t, keep(table, id(1), "value", 100, 7))
	value, ok := get(table, id(1), 99, 7)
	require.True(t, ok)
	require.Equal(t, "value", value)
	for _, c := range []struct {
		name  Name
		now   int64
		epoch uint32
	}{{id(1), 100, 7}, {id(1), 99, 8}, {id(2), 99, 7}, {Name{'u', id(1).ID}, 99, 7}} {
		_, ok := get(table, c.name, c.now, c.epoch)
		require.False(t, ok, c)
	}
	require.True(t, keep(table, id(1), "", 100, 7))
	value, ok = get(table, id(1), 99, 7)
	require.True(t, ok)
	require.Empty(t, value)
}

func TestADropSpoilsTheReadingsUnderWay(t *testing.T) {
	table := New(10, 600)
	first, second := table.Begin(id(1)), table.Begin(id(1))
	require.False(t, table.Drop(id(1)), "there is nothing yet")
	third := table.Begin(id(1))
	require.False(t, table.End(first, []byte("old"), 100, 1))
	require.True(t, table.End(third, []byte("new"), 100, 1))
	require.False(t, table.End(second, []byte("old"), 100, 1))
	value, _ := get(table, id(1), 1, 1)
	require.Equal(t, "new", value)

	require.True(t, table.Drop(id(1)))
	require.False(t, table.Drop(id(1)))
	_, ok := get(table, id(1), 1, 1)
	require.False(t, ok)
	last, ok := table.Last(id(1))
	require.True(t, ok)
	require.Equal(t, "new", string(last))

	r := table.Begin(id(2))
	require.True(t, keep(table, id(3), "x", 100, 1))
	table.DropAll()
	require.False(t, table.End(r, []byte("old"), 100, 1))
	_, ok = get(table, id(3), 1, 1)
	require.False(t, ok)
	require.False(t, table.End(table.Begin(id(4)), nil, 100, 1))
	for i := range table.shards {
		require.Empty(t, table.shards[i].readings)
	}
}

func TestADropSpoilsASearchForItsName(t *testing.T) {
	table := New(10, 600)
	search := table.Search('s')
	table.Drop(id(1))
	require.False(t, table.EndAs(search, id(1), []byte("old"), 100, 1))
	search = table.Search('s')
	table.Drop(id(1))
	require.True(t, table.EndAs(search, id(2), []byte("other"), 100, 1))
	search = table.Search('s')
	table.DropAll()
	require.False(t, table.EndAs(search, id(3), []byte("old"), 100, 1))
	search = table.Search('s')
	for i := range mostNoted + 1 {
		table.Drop(id(i + 10))
	}
	require.False(t, table.EndAs(search, id(3), []byte("perhaps"), 100, 1))
	table.Cancel(search)
	table.Cancel(table.Search('s'))
	require.Empty(t, table.search)
	require.Zero(t, table.open.Load())
}

func TestAValueIsChangedInPlace(t *testing.T) {
	table := New(10, 600)
	keep(table, id(1), "abc", 100, 1)
	table.Change(id(1), 1, 1, func(value []byte) { value[1] = 'X' })
	table.Change(id(1), 1, 2, func([]byte) { t.Error("another epoch") })
	table.Change(id(1), 100, 1, func([]byte) { t.Error("over") })
	table.Change(id(2), 1, 1, func([]byte) { t.Error("not there") })
	value, _ := get(table, id(1), 1, 1)
	require.Equal(t, "aXc", value)
}

func TestSizes(t *testing.T) {
	require.Equal(t, uintptr(entryBytes), unsafe.Sizeof(entry{}))
	require.Equal(t, classes-1, int(classOf(MaxSize)))
	last := 0
	for class := range uint8(classes) {
		size := sizeOf(class)
		require.Greater(t, size, last)
		require.Equal(t, class, classOf(size))
		require.Equal(t, class, classOf(last+1))
		last = size
	}
	require.Equal(t, largest, last)

	table := New(10, 600)
	long := strings.Repeat("v", MaxSize)
	require.True(t, keep(table, Name{'s', ""}, long[1:], 100, 1))
	value, _ := get(table, Name{'s', ""}, 1, 1)
	require.Equal(t, long[1:], value)
	require.False(t, keep(table, Name{'s', ""}, long, 100, 1))
	_, ok := get(table, Name{'s', ""}, 1, 1)
	require.False(t, ok, "what was there is no longer so")
}

// Whatever happens, the table holds what a map would, or less.
func TestAgainstAMap(t *testing.T) {
	const most = 500
	table, model := New(most, 2000), map[Name]string{}
	rnd := rand.New(rand.NewPCG(1, 2))
	for step := range 200_000 {
		n := id(rnd.IntN(1500))
		switch rnd.IntN(10) {
		case 0:
			table.Drop(n)
			delete(model, n)
		case 1, 2, 3:
			value := strings.Repeat(string(rune('a'+rnd.IntN(26))), rnd.IntN(1200))
			require.True(t, keep(table, n, value, 100, 1))
			model[n] = value
		case 4:
			if step%5000 == 4 {
				table.DropAll()
				clear(model)
			}
		default:
			if value, ok := get(table, n, 1, 1); ok {
				require.Equal(t, model[n], value)
			}
		}
	}
	stats := table.Stats()
	require.LessOrEqual(t, stats.Entries, (most/shards+1)*shards)
	require.Greater(t, stats.Entries, most/2)
	require.Positive(t, stats.Evicted)
	require.Less(t, stats.Bytes, int64(4<<20))
}

// However the sizes change, the memory has a bound.
func TestMemoryIsBounded(t *testing.T) {
	const most, size = 2000, 500
	table := New(most, size)
	for length := 10; length < MaxSize-20; length += length / 3 {
		value := strings.Repeat("v", length)
		for i := range 3 * most {
			keep(table, id(i), value, 100, 1)
		}
		require.Less(t, table.Stats().Bytes, int64(most*size+shards*4*largest), length)
		_, ok := get(table, id(3*most-1), 1, 1)
		require.True(t, ok)
	}
}

// What is used stays when place is needed.
func TestTheUsedStay(t *testing.T) {
	table := New(3200, 600)
	for i := range 100 {
		keep(table, id(i), "hot", 100, 1)
	}
	lost := 0
	for i := 100; i < 20_000; i++ {
		keep(table, id(i), "cold", 100, 1)
		if _, ok := get(table, id(i%100), 1, 1); !ok {
			lost++
			keep(table, id(i%100), "hot", 100, 1)
		}
	}
	require.Less(t, lost, 100)
}

func TestConcurrentUse(t *testing.T) {
	table := New(1000, 600)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 20_000 {
				n := id(rnd.IntN(2000))
				switch rnd.IntN(4) {
				case 0:
					table.Drop(n)
				case 1:
					keep(table, n, n.ID, 100, 1)
				case 2:
					table.Change(n, 1, 1, func(value []byte) { value[0] = 'n' })
				default:
					if value, ok := get(table, n, 1, 1); ok && value != n.ID {
						t.Errorf("%q has %q", n.ID, value)
					}
				}
			}
		})
	}
	wg.Wait()
	table.Stats()
}

func TestAHitAllocatesNothing(t *testing.T) {
	table := New(10, 600)
	keep(table, id(1), "value", 100, 1)
	n, buffer := id(1), make([]byte, 0, 100)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if _, _, ok := table.Get(n, 1, 1, buffer); !ok {
			t.Error("not there")
		}
	}))
}

// The cost of an entry, and of the collector's looking at all of them.
func BenchmarkTable(b *testing.B) {
	for _, entries := range []int{1000, 200_000} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) {
			table := New(entries, 600)
			names := make([]Name, entries)
			value := make([]byte, 150)
			for i := range names {
				names[i] = Name{'s', fmt.Sprintf("%032d", i)}
				table.End(table.Begin(names[i]), value, 100, 1)
			}
			stats := table.Stats()
			buffer := make([]byte, 0, 1000)
			i := 0
			for b.Loop() {
				table.Get(names[i], 1, 1, buffer)
				if i++; i == entries {
					i = 0
				}
			}
			b.ReportMetric(float64(stats.Bytes)/float64(stats.Entries), "B/entry")
			runtime.KeepAlive(table)
		})
	}
}
