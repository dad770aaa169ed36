package proctest

import (
	"flag"
	"runtime"
	"strconv"
)

// AtOnce lets n parallel tests of a package run at once, though there are fewer cores:
// for those that mostly wait for what they started. What -parallel says counts more. It
// is called by TestMain.
func AtOnce(n int) {
	const name = "test.parallel"
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == name })
	if !said {
		_ = flag.Set(name, strconv.Itoa(max(n, runtime.GOMAXPROCS(0))))
	}
}
