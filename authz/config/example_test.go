package config_test

import (
	"errors"
	"fmt"
	"os"

	"github.com/gatehouse-auth/gatehouse/authz/config"
)

func ExampleParse() {
	cfg, warnings, err := config.Parse("gatehouse.yaml", []byte(`
sessions: {secrets: ["${SESSION_SECRET}"]}
policies:
  user: {credentials: [session]}
default_policy: user
`), func(name string) (string, bool) { return "0123456789abcdef", name == "SESSION_SECRET" })
	fmt.Println(err, len(warnings))
	fmt.Println(cfg.Server.Check.Listen, cfg.PolicyNames(), cfg.Sessions.Secrets)
	// Output:
	// <nil> 0
	// 127.0.0.1:9001 [user] [[secret]]
}

func ExampleProblems() {
	_, _, err := config.Parse("gatehouse.yaml", []byte(`
server: {check: {lisen: 127.0.0.1:9001}}
sessions: {ttl: 1 day}
default_policy: user
`), os.LookupEnv)
	fmt.Println(err)
	if problems, ok := errors.AsType[config.Problems](err); ok {
		fmt.Println(len(problems), problems[0].Line, problems[0].Key)
	}
	// Output:
	// gatehouse.yaml:2:18: server.check.lisen: unknown key; did you mean listen?
	// gatehouse.yaml:3:17: sessions.ttl: expected a duration such as 500ms, 15m or 24h, found "1 day"; the units are ms, s, m and h, and a day is 24h
	// gatehouse.yaml:4:17: default_policy: "user" is not in policies, which is empty; define it there
	// 3 2 server.check.lisen
}
