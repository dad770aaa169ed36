// Command release makes what is given out, and checks what is in it.
//
//	release licenses                      are all licences allowed, and are the notices fresh?
//	release licenses -write               writes THIRD_PARTY_NOTICES
//	release build -version v1.2.3         writes dist/v1.2.3
//	release check -version v1.2.3         builds twice, far apart, and compares
//
// The Makefile calls it, with the Go release that builds are pinned to.
//
// A release depends on nothing but its commit, its version and that Go release:
// it is built from a clone that has only what was committed, and every time in it
// is the commit's. Two people who build the same get the same bytes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// gatehouse is what this repository gives out.
var gatehouse = product{
	Name:   "gatehouse",
	Module: "github.com/gatehouse-auth/gatehouse",
	Main:   "./cmd/gatehouse",
	Others: []string{"./services/user-service", "./services/order-service", "./services/demo-page", "./deploy/probe"},
	Tags:   "timetzdata", // as in deploy/Dockerfile: conditions may name a time zone
	Papers: []string{"LICENSE", noticesFile},
	Help:   true,
	Targets: []target{
		{OS: "linux", Arch: "amd64"},
		{OS: "linux", Arch: "arm64"},
	},
}

// product says what a release is made of.
type product struct {
	Name    string
	Module  string
	Main    string   // the package of the released program
	Others  []string // packages of programs that are in our images only
	Tags    string
	Papers  []string // files of the repository that go into each archive
	Help    bool     // the program writes manual pages and completion, which go there too
	Targets []target
}

// target is a platform as Go names it.
type target struct{ OS, Arch string }

func (t target) String() string { return t.OS + "/" + t.Arch }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("say what to do: licenses, build or check")
	}
	flags := flag.NewFlagSet("release "+args[0], flag.ContinueOnError)
	root := flags.String("root", "..", "the repository")
	write := flags.Bool("write", false, "licenses: write "+noticesFile)
	version := flags.String("version", "", "build, check: the version, such as v1.2.3")
	dist := flags.String("dist", "", "build: where to (default ROOT/dist/VERSION)")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is too much", flags.Arg(0))
	}
	dir, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	switch args[0] {
	case "licenses":
		return licenses(ctx, gatehouse, dir, *write, out)
	case "build":
		if *dist == "" {
			*dist = filepath.Join(dir, "dist", *version)
		}
		return release(ctx, gatehouse, dir, *version, *dist, out)
	case "check":
		return rehearse(ctx, gatehouse, dir, *version, out)
	default:
		return fmt.Errorf("%q is none of licenses, build and check", args[0])
	}
}
