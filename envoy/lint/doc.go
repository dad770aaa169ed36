// Package lint finds the settings of a gateway that turn the external
// authorization check into decoration: the request that skips it, the failure
// that counts as permission, the path that is checked in one form and served
// in another, the header by which a client names itself.
//
//	findings := lint.Lint([]lint.Source{{Name: "envoy.yaml", Data: text}}, lint.Options{})
//	for _, f := range findings {
//		fmt.Printf("%s:%d:%d: %s %s: %s\n", f.File, f.Line, f.Column, f.Severity, f.Code, f.Message)
//	}
//
// It reads, as YAML or JSON, with any number of documents in a file:
//
//   - an Envoy bootstrap, and what the admin interface shows at /config_dump;
//   - single listeners, route configurations and clusters, lists of them, and
//     discovery responses (the files of Envoy's filesystem subscription);
//   - Istio's AuthorizationPolicy and mesh configuration (in the ConfigMap, in
//     an IstioOperator, in Helm values, or alone), and beside these
//     VirtualService, Gateway and the settings of the gateway's proxies;
//   - Envoy Gateway's SecurityPolicy and ClientTrafficPolicy, and beside these
//     HTTPRoute and GRPCRoute.
//
// Envoy's own forms are decoded by go-control-plane's types, as strictly as
// Envoy does it: a field that Envoy doesn't know is a finding. The other two
// are read for what the check depends on.
//
// Lint reads nothing but its arguments. It judges what is in the files: what
// a control plane adds later, or a program in Lua does, it can only name.
package lint
