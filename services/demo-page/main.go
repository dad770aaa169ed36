// Demo-page serves the page at the gateway's root where the demo runs in
// containers; package demopage has its story. It needs no secret and reaches
// nobody: the browser does all that the page does, through the gateway. It is
// configured by the environment or by flags:
//
//	LISTEN  --listen  127.0.0.1:8103
//	STORE   --store   what the page calls the store of the sessions: Redis
package main

import (
	"context"
	"os"

	"github.com/gatehouse-auth/gatehouse/services/demopage"
	"github.com/gatehouse-auth/gatehouse/services/internal/upstream"
)

const name = "demo-page"

func main() { os.Exit(upstream.Main(name, run)) }

func run(ctx context.Context, p upstream.Process) error {
	flags := upstream.NewFlags(name, p)
	listen := flags.String("listen", "LISTEN", "127.0.0.1:8103", "`address` to listen on")
	store := flags.String("store", "STORE", "Redis", "`name` that the page gives to the store of the sessions")
	if err := flags.Parse(); err != nil {
		return err
	}
	return upstream.ListenAndServe(ctx, name, *listen, demopage.New(demopage.Options{Store: *store}), p.Log(), p.Stdout)
}
