package lint

import "slices"

// Rule is something that findings can be about. Codes are grouped: GH0 the
// file, GH1 the check, GH2 the routes, GH3 how requests are read, GH4 what is
// around, GH5 Istio, GH6 Envoy Gateway.
type Rule struct {
	Code     string   `json:"code"`
	Severity Severity `json:"severity"`
	Title    string   `json:"title"`   // what is wrong, in a few words
	Attack   string   `json:"attack"`  // what somebody does with it
	Remedy   string   `json:"remedy"`  // what to do
	Setting  string   `json:"setting"` // the same in YAML; "" where it isn't a setting
}

// Ignorable reports whether findings of the rule can be left out. Those about
// files that were not read can't: the rest would look like a clean bill.
func (r Rule) Ignorable() bool { return r.Code != codeSyntax && r.Code != codeUnknown }

// Rules returns all rules, by code.
func Rules() []Rule { return slices.Clone(rules) }

// ruleOf returns the rule of a code. It panics where there is none: that is a
// mistake in this package.
func ruleOf(code string) Rule {
	i := slices.IndexFunc(rules, func(r Rule) bool { return r.Code == code })
	return rules[i]
}

// The codes. One that was given away is never used for something else.
const (
	codeSyntax    = "GH001"
	codeUnknown   = "GH002"
	codeField     = "GH003"
	codeValue     = "GH004"
	codeTwice     = "GH005"
	codeUnread    = "GH006"
	codeElsewhere = "GH007"
	codeMerge     = "GH008"

	codeFailOpen         = "GH101"
	codeNoCheck          = "GH102"
	codeFilterDisabled   = "GH103"
	codePartial          = "GH104"
	codeShadow           = "GH105"
	codeConditional      = "GH106"
	codeOptional         = "GH107"
	codeUpgrade          = "GH108"
	codeAnswersFirst     = "GH109"
	codeProgramFirst     = "GH110"
	codeReroutes         = "GH111"
	codeProgramAfter     = "GH112"
	codeIdentitySet      = "GH113"
	codeSecondCheck      = "GH114"
	codeNobody           = "GH115"
	codePlaintext        = "GH116"
	codeContainerNetwork = "GH117"
	codeNoCA             = "GH118"
	codeNoSAN            = "GH119"
	codeHTTP1            = "GH120"
	codeTransport        = "GH121"
	codeTimeout          = "GH122"
	codeStatusOnError    = "GH123"
	codeHTTPService      = "GH124"
	codeHTTPIdentity     = "GH125"
	codeReroutedByHeader = "GH126"
	codeClearRouteCache  = "GH127"
	codeHiddenCredential = "GH128"
	codeHiddenCrossSite  = "GH129"
	codeAllHeaders       = "GH130"
	codeBody             = "GH131"
	codeValidate         = "GH132"
	codeMutationRules    = "GH133"
	codeRawHeaders       = "GH134"
	codeOtherServer      = "GH135"

	codeIdentityLeft  = "GH201"
	codeOpenByDefault = "GH202"
	codeSharedService = "GH203"
	codeStranger      = "GH204"
	codePolicyUnknown = "GH205"
	codeNoPolicy      = "GH206"
	codePrefix        = "GH207"
	codeSlash         = "GH208"
	codeCase          = "GH209"
	codeShadowed      = "GH210"
	codeParameters    = "GH211"
	codeClusterHeader = "GH212"
	codeAddress       = "GH213"
	codeVirtualHost   = "GH214"
	codeRewrite       = "GH215"
	codeLeftOut       = "GH216"
	codeHostHeader    = "GH217"

	codeNormalize      = "GH301"
	codeSlashes        = "GH302"
	codeEscapedSlashes = "GH303"
	codeUnderscores    = "GH304"
	codeNotEarly       = "GH305"
	codeOverrides      = "GH306"
	codeRemoteAddress  = "GH307"
	codeClientCert     = "GH308"
	codeSmuggling      = "GH309"
	codeTrailers       = "GH310"
	codeDots           = "GH311"

	codeDirect = "GH401"
	codeAdmin  = "GH402"
	codeInside = "GH403"
	codeTunnel = "GH404"

	codeIstioFailOpen   = "GH501"
	codeIstioProvider   = "GH502"
	codeIstioNoRule     = "GH503"
	codeIstioPartial    = "GH504"
	codeIstioTimeout    = "GH505"
	codeIstioStatus     = "GH506"
	codeIstioHTTP       = "GH507"
	codeIstioHidden     = "GH508"
	codeIstioCrossSite  = "GH509"
	codeIstioIdentity   = "GH510"
	codeIstioClearRoute = "GH511"
	codeIstioBody       = "GH512"
	codeIstioPaths      = "GH513"
	codeIstioOpen       = "GH514"
	codeIstioElsewhere  = "GH515"

	codeEGFailOpen    = "GH601"
	codeEGOverride    = "GH602"
	codeEGNarrow      = "GH603"
	codeEGTimeout     = "GH604"
	codeEGStatus      = "GH605"
	codeEGHTTP        = "GH606"
	codeEGHidden      = "GH607"
	codeEGCrossSite   = "GH608"
	codeEGIdentity    = "GH609"
	codeEGRecompute   = "GH610"
	codeEGBody        = "GH611"
	codeEGPaths       = "GH612"
	codeEGUnderscores = "GH613"
)

const (
	attackFailOpen   = "Whoever makes the check fail is let in: with a flood of requests, with one that takes too long, or by waiting for a restart. Services then see the identity headers that the client wrote."
	attackHTTP       = "Over HTTP the answer is a list of headers that the gateway must be told to copy, and what the list forgets stays as the client sent it. Identity headers in odd spellings are not removed, and there is no dynamic metadata."
	attackIdentity   = "A caller with any valid credential sends x-user-id: root beside it; the check says yes, and the service believes the header."
	attackTimeout    = "A check that hangs holds the request, its connection and its memory. A few hundred slow requests, and the gateway has room for nobody else."
	attackStatus     = "An outage looks like a refusal: clients give up or log their users out instead of trying again, and nobody sees in the statistics that the check was not made."
	attackClearRoute = "The first route named the policy that was asked; the request then goes by another route, whose own policy was never asked."
	attackBody       = "Anybody, logged in or not, sends large bodies slowly; the gateway holds each of them in memory until the check is done."
	attackHidden     = "Users are turned away, or, where a policy lets the anonymous through, are nobody; somebody then opens the policy to make it work."
	attackCrossSite  = "A page of another site has the browser of a logged-in user send a POST or open a web socket with the session cookie, and it counts."
	attackSlashes    = "//admin or /users%2fadmin is routed and checked as one path, and served as another by a service that reads it differently."
	attackUnderscore = "A client sends x_user_id. A service behind WSGI or CGI reads it as x-user-id, and may take it for the gateway's word."
)

var rules = []Rule{
	{codeSyntax, Error, "The file can't be read", "A file that is not read is a file in which nothing is found.", "Correct the file. A template has to be rendered before it is linted.", ""},
	{codeUnknown, Error, "Nothing here that lint knows", "A file that is not read is a file in which nothing is found.", "Give an Envoy bootstrap, a /config_dump, listeners, route configurations or clusters, an Istio AuthorizationPolicy or mesh configuration, or an Envoy Gateway SecurityPolicy. What belongs to these is given together with them.", ""},
	{codeField, Error, "Envoy doesn't know this field", "Envoy refuses the file, and goes on with the one before, or doesn't start.", "Correct the name. If your Envoy is newer than this program, pass --ignore GH003.", ""},
	{codeValue, Error, "Envoy can't read this value", "Envoy refuses the file, and goes on with the one before, or doesn't start.", "Give a value of the type that the field has.", ""},
	{codeTwice, Warning, "A key is given twice", "Who reviews the file sees the first one, failure_mode_allow: false for example, and Envoy takes the last.", "Take one of them out.", ""},
	{codeUnread, Note, "Not looked at", "What is set there can undo what is right everywhere else.", "Look at it yourself, or lint Envoy's /config_dump, where everything has been put together.", ""},
	{codeElsewhere, Note, "Not in these files", "What is set there can undo what is right here.", "Give the other file, too, or lint Envoy's /config_dump.", ""},
	{codeMerge, Warning, "Envoy knows no merge keys", "Envoy refuses the file, and goes on with the one before, or doesn't start.", "Write the merged keys out, or use an alias for a whole value.", "typed_per_filter_config: *skip"},

	{codeFailOpen, Error, "A check that fails lets the request pass", attackFailOpen, "Refuse what could not be checked.", "failure_mode_allow: false"},
	{codeNoCheck, Error, "A way to services without a check", "Every request gets through, with the identity headers that the client wrote.", "Put the ext_authz filter before the router. envoy/envoy.yaml shows the whole of it.", "http_filters:\n- name: envoy.filters.http.ext_authz\n  typed_config: …"},
	{codeFilterDisabled, Error, "The check is off by default", "Every route that doesn't switch it on is open, and the next one that somebody adds will be.", "Leave it on, and switch it off route by route.", "disabled: false"},
	{codePartial, Error, "Only some requests are checked", "Who tries often enough gets through unasked, or sends what makes the metadata differ.", "Check all requests. What is meant for a part of them is a policy in Gatehouse; mode: observe tries one out.", "filter_enabled: {default_value: {numerator: 100, denominator: HUNDRED}}"},
	{codeShadow, Error, "The check refuses nobody", "Refusals are only written down: every request gets through.", "Let refusals count. To try a policy out, use mode: observe in Gatehouse, for that policy alone.", "shadow_mode: false"},
	{codeConditional, Error, "A condition decides whether there is a check", "A client that sends what the condition asks for is not checked.", "Put the filter into the chain as it is, and exempt routes by typed_per_filter_config.", "- name: envoy.filters.http.ext_authz\n  typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz, …}"},
	{codeOptional, Warning, "An Envoy without ext_authz leaves the check out", "After a change of the image, a build without the extension starts as if nothing were missing, and asks nobody.", "Let Envoy refuse a configuration that it can't follow.", "is_optional: false"},
	{codeUpgrade, Error, "Upgrades skip the check", "A client adds Connection: upgrade and Upgrade: websocket, and reaches every route without a check.", "Take the filters out: upgrades then go through those of all requests.", "upgrade_configs: [{upgrade_type: websocket}]"},
	{codeAnswersFirst, Error, "Something answers before the check", "Whoever asks gets what somebody else was allowed to see.", "Put the check before it.", ""},
	{codeProgramFirst, Warning, "A program comes before the check", "It can answer in place of the service, or leave something in the request that changes the decision; nothing here says that it doesn't.", "Put it after the check, or read it with this in mind and pass --ignore GH110.", ""},
	{codeReroutes, Error, "What was checked is changed afterwards", "The check judges one path; the filter makes another one of it, for which another policy should have been asked.", "Put the filter before the check.", ""},
	{codeProgramAfter, Warning, "A program comes after the check", "It can write identity headers, and change the path that was checked; nothing here says that it doesn't.", "Put it before the check, or read it with this in mind and pass --ignore GH112.", ""},
	{codeIdentitySet, Error, "Somebody else sets an identity header", "The service believes the header, whatever the check has found. Where the value comes from the client's request or token, the client chooses who it is.", "Take it out: Gatehouse sets these headers. To map claims, use issuers[].claims in Gatehouse.", ""},
	{codeSecondCheck, Warning, "Two checks", "Routes that switch off one of them, or name a policy for it, may mean the other; the second one can overwrite the identity that the first has set.", "Keep one, or give them different names and look at each route for both.", ""},
	{codeNobody, Error, "The check asks nobody", "Every check fails. With failure_mode_allow: true everybody gets in, without it nobody.", "Name the cluster that leads to Gatehouse.", "grpc_service: {envoy_grpc: {cluster_name: gatehouse}, timeout: 1s}"},
	{codePlaintext, Error, "The check goes over the network in plain text", "Whoever is on the way reads every cookie and token, and can answer in Gatehouse's place: yes, as root.", "Use TLS with a client certificate (envoy/envoy-tls.yaml), or put Gatehouse beside Envoy, on loopback or a Unix socket.", "transport_socket: {name: envoy.transport_sockets.tls, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, …}}"},
	{codeContainerNetwork, Note, "The check goes over a container network in plain text", "In a cluster of several machines, whoever is on the way reads every cookie and token, and can answer in Gatehouse's place.", "Nothing, where all containers run on one machine. Else use TLS with a client certificate (envoy/envoy-tls.yaml).", ""},
	{codeNoCA, Error, "Any certificate is Gatehouse's", "Whoever is on the way answers in Gatehouse's place, with a certificate that he made himself: yes, as root.", "Say whom Envoy trusts.", "validation_context: {trusted_ca: {filename: ca.crt}, match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: gatehouse}}]}"},
	{codeNoSAN, Warning, "Any certificate of the authority is Gatehouse's", "One service that is broken into answers in Gatehouse's place with its own certificate.", "Say which name the certificate must have.", "match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: gatehouse}}]"},
	{codeHTTP1, Error, "The way to Gatehouse can't carry gRPC", "Every check fails. With failure_mode_allow: true everybody gets in, without it nobody.", "Speak HTTP/2 with it.", "explicit_http_config: {http2_protocol_options: {}}"},
	{codeTransport, Error, "A version of the check that is no more", "Envoy refuses the file, and goes on with the one before, or doesn't start.", "Say V3.", "transport_api_version: V3"},
	{codeTimeout, Warning, "The time of a check is not bounded well", attackTimeout, "Give it a second, and Gatehouse less (redis.timeout).", "grpc_service: {timeout: 1s}"},
	{codeStatusOnError, Warning, "An outage looks like a refusal", attackStatus, "Answer 503.", "status_on_error: {code: ServiceUnavailable}"},
	{codeHTTPService, Warning, "The check goes over HTTP", attackHTTP, "Use gRPC.", "grpc_service: {envoy_grpc: {cluster_name: gatehouse}, timeout: 1s}"},
	{codeHTTPIdentity, Error, "The identity doesn't arrive, the client's does", attackIdentity, "Take the identity headers over from the answer.", "authorization_response: {allowed_upstream_headers: {patterns: [{exact: x-user-id}, {exact: x-user-email}, {exact: x-user-roles}, {exact: x-org-id}]}}"},
	{codeReroutedByHeader, Error, "The route is chosen again, by a header", attackClearRoute, "Keep the route that was checked.", "clear_route_cache: false"},
	{codeClearRouteCache, Warning, "The route is chosen again after the check", attackClearRoute + " As long as routes look at the path alone, nothing comes of it.", "Keep the route that was checked.", "clear_route_cache: false"},
	{codeHiddenCredential, Warning, "Gatehouse doesn't see a credential", attackHidden, "Let these headers through to the check.", "allowed_headers: {patterns: [{exact: cookie}, {exact: authorization}, {exact: x-internal-api-key}, {exact: origin}, {prefix: sec-fetch-}, {exact: upgrade}]}"},
	{codeHiddenCrossSite, Error, "Gatehouse can't tell requests of other sites", attackCrossSite, "Let the headers by which browsers say so through to the check.", "allowed_headers: {patterns: [{exact: cookie}, {exact: authorization}, {exact: x-internal-api-key}, {exact: origin}, {prefix: sec-fetch-}, {exact: upgrade}]}"},
	{codeAllHeaders, Note, "All headers go to the check", "What else is in them, a partner's key for another service for example, is in one more place.", "Send what a decision can depend on.", "allowed_headers: {patterns: [{exact: cookie}, {exact: authorization}, {exact: x-internal-api-key}, {exact: origin}, {prefix: sec-fetch-}, {exact: upgrade}]}"},
	{codeBody, Warning, "Bodies are held for the check", attackBody, "Take with_request_body out.", ""},
	{codeValidate, Warning, "The answer's headers are not validated", "A value with a line break, out of a claim or a profile, becomes two headers.", "Have Envoy look at them.", "validate_mutations: true"},
	{codeMutationRules, Warning, "The answer may change what was checked", "Whoever can write into the answer, by a claim that a policy copies into a header, turns the request into another one.", "Keep method, path and host as they were checked.", "decoder_header_mutation_rules: {disallow_system: true, allow_all_routing: false, allow_envoy: false, disallow_is_error: true}"},
	{codeRawHeaders, Note, "The check doesn't see headers as they are", "Two requests that differ look the same to the check; only one of them is judged.", "Send headers one by one, byte by byte.", "encode_raw_headers: true"},
	{codeOtherServer, Warning, "A route asks another server", "That server's yes counts, and none of the settings around it were looked at.", "Let the route name a policy instead.", "check_settings: {context_extensions: {policy: admin}}"},

	{codeIdentityLeft, Error, "An unchecked route lets identity headers through", "A client sends x-user-id: root, or x_user_id, to this route. Nobody removes it, and the service believes it.", "Take every spelling out before routing, or on the route.", "request_headers_to_remove: [x-user-id, x-user-email, x-user-roles, x-org-id]   # and x_user_id, …"},
	{codeOpenByDefault, Warning, "The check is off for a whole virtual host", "Nobody notices that the route which is added tomorrow is open.", "Switch it off route by route.", ""},
	{codeSharedService, Warning, "A service is reached with and without a check", "What the unchecked route was not meant for (another method, a longer path, a page that came later) is open, too.", "Check the route, by a policy that lets everybody through: {anonymous: true}.", "check_settings: {context_extensions: {policy: public}}"},
	{codeStranger, Error, "Settings for a check that isn't there", "The policy that stands here is never asked; Gatehouse's routes or its default_policy decide, and may ask for less.", "Use the name that the filter has in http_filters.", "typed_per_filter_config:\n  envoy.filters.http.ext_authz: …"},
	{codePolicyUnknown, Error, "No such policy", "None: every request to it is refused. But who repairs that in a hurry opens it.", "Correct the name, or add the policy to Gatehouse's configuration.", ""},
	{codeNoPolicy, Warning, "Nothing names a policy", "None: every request is refused. But who repairs that in a hurry opens it.", "Name policies on routes, or set default_policy in Gatehouse's configuration.", "check_settings: {context_extensions: {policy: user}}"},
	{codePrefix, Warning, "A prefix ends in the middle of a word", "/public-internal is open because /public is.", "Match whole segments.", "match: {path_separated_prefix: /public}"},
	{codeSlash, Error, "A slash makes the difference", "A client leaves out, or adds, the slash at the end. The looser route takes it, and the service serves the same page.", "Match the path with and without the slash.", "match: {path_separated_prefix: /admin}"},
	{codeCase, Warning, "Capitals make the difference", "A client asks for /users/ADMIN. The looser route takes it; Express, and others, serve the same page.", "Match in any case on the stricter route.", "match: {path_separated_prefix: /users/admin, case_sensitive: false}"},
	{codeShadowed, Error, "A route that is never reached", "The policy that stands here is never asked.", "Put the stricter route first.", ""},
	{codeParameters, Warning, "A semicolon makes the difference", "A client asks for /users/admin;x. The looser route takes it; Tomcat, and others, drop what is behind the semicolon.", "Refuse semicolons before all other routes.", "- match: {safe_regex: {regex: \".*;.*\"}}\n  direct_response: {status: 400}"},
	{codeClusterHeader, Error, "The client names the cluster", "A client that may use one service sends the name of another, and is there without having been asked by its policy.", "Name the cluster in the route, or take the header out before routing.", "route: {cluster: user_service}"},
	{codeAddress, Error, "The client names the address", "A client that may use one service names another, the admin interface or Redis: Envoy connects to it, and no route or policy was made for it.", "Name the service in the route, or take the header out before routing.", "route: {cluster: user_service}"},
	{codeVirtualHost, Warning, "A header chooses the routes", "A client sends the header of another virtual host, in which the same service has a looser policy. Routes in Gatehouse go by the host, which it leaves as it is.", "Choose by the host, or take the header out before routing.", ""},
	{codeRewrite, Warning, "A rewrite leads around another route", "/public/users/admin, with the prefix taken away, is /users/admin for the service, and was checked as public.", "Rewrite to a path below which no other route has a policy of its own, or give both the stricter one.", "prefix_rewrite: /public"},
	{codeLeftOut, Warning, "A header decides which policy is asked", "A client sends the header, cookie or parameter, or leaves it out, and is under the looser of the two policies.", "Name the same policy on both routes; let Gatehouse look at the header, by a condition.", ""},
	{codeHostHeader, Warning, "The client names the host that the service sees", "The check sees the host of the request, the service another one: with several hosts behind one address, a page of another host is served.", "Say which host is meant, or take the header out before routing.", "host_rewrite_literal: users.example.com"},

	{codeNormalize, Error, "Paths are not normalised", "/public/../users/admin is routed, and checked, as public, and served as /users/admin. On a checked route Gatehouse refuses it; on one that skips the check nobody does.", "Normalise first.", "normalize_path: true"},
	{codeSlashes, Warning, "Repeated slashes are kept", attackSlashes, "Merge them.", "merge_slashes: true"},
	{codeEscapedSlashes, Warning, "Escaped slashes get through", attackSlashes, "Refuse them.", "path_with_escaped_slashes_action: REJECT_REQUEST"},
	{codeUnderscores, Warning, "Headers with underscores get through", attackUnderscore, "Refuse them.", "common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}"},
	{codeNotEarly, Warning, "Identity headers are not removed at the door", "Only the check removes them. On the route that skips it, tomorrow or by mistake, a client says who it is.", "Take them out before routing and before any filter.", "early_header_mutation_extensions:\n- name: envoy.http.early_header_mutation.header_mutation\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation\n    mutations:\n    - remove_on_match: {key_matcher: {safe_regex: {regex: \"x[^a-z0-9](user[^a-z0-9](id|email|roles)|org[^a-z0-9]id|identity[^a-z0-9]assertion)\"}}}"},
	{codeOverrides, Warning, "Headers that ask for another method or path get through", "GET /users with x-http-method-override: DELETE, or x-original-url: /users/admin: the check sees the first, many frameworks do the second.", "Take them out, as the identity headers.", "- remove_on_match: {key_matcher: {safe_regex: {regex: \"x[^a-z0-9](http[^a-z0-9])?method([^a-z0-9]override)?|x[^a-z0-9](original|rewrite)[^a-z0-9]ur[il]\"}}}"},
	{codeRemoteAddress, Warning, "The client chooses its address", "A client writes another x-forwarded-for into each request and is under no rate limit; with an internal one it may set timeouts and retries by x-envoy-… headers.", "Take the peer's address, or count the proxies in front.", "use_remote_address: true\nxff_num_trusted_hops: 0"},
	{codeClientCert, Warning, "A client's x-forwarded-client-cert gets through", "A service that believes the header believes a certificate that nobody has verified.", "Take it out.", "forward_client_cert_details: SANITIZE"},
	{codeSmuggling, Warning, "Requests with two lengths are accepted", "A second request hides in the body of the first: it was never checked, and the service answers it.", "Refuse them.", "http_protocol_options: {allow_chunked_length: false}"},
	{codeTrailers, Warning, "Trailers get through", "A trailer named x-user-id arrives after the check; a server that adds trailers to headers believes it.", "Drop them.", "http_protocol_options: {enable_trailers: false}"},
	{codeDots, Warning, "Headers with dots get through", "A client sends x.user.id. PHP makes HTTP_X_USER_ID of it, as of x-user-id, and takes the one that comes last.", "Take out names with anything between the words.", "- remove_on_match: {key_matcher: {safe_regex: {regex: \"x[^a-z0-9](user[^a-z0-9](id|email|roles)|org[^a-z0-9]id|identity[^a-z0-9]assertion)\"}}}"},

	{codeDirect, Error, "A way past the check", "A client uses the other port, host or protocol, and writes the identity headers itself.", "Put the check into that way, too, or close it.", ""},
	{codeAdmin, Error, "The admin interface is open", "Whoever reaches it reads the whole configuration, changes runtime settings and stops the gateway, without any credential.", "Listen on loopback, and allow only pages that change nothing.", "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}"},
	{codeInside, Error, "A route to what nobody may reach", "A client asks for /quitquitquit, /runtime_modify or /config_dump through the gateway.", "Take the route out.", ""},
	{codeTunnel, Error, "A tunnel to a service", "A client that may open the tunnel sends requests in it, with the identity headers that it likes; nobody checks them and nobody removes a header.", "Take the upgrade out. WebSockets are fine: no request fits into one.", "upgrade_configs: [{upgrade_type: websocket}]"},

	{codeIstioFailOpen, Error, "A check that fails lets the request pass", attackFailOpen, "Refuse what could not be checked.", "failOpen: false"},
	{codeIstioProvider, Error, "No such provider", "Istio has nothing to ask. Until somebody notices, requests are all refused, or, where the policy is dropped, all pass.", "Define the provider in the mesh configuration, under the name that the policy has.", "extensionProviders:\n- name: gatehouse\n  envoyExtAuthzGrpc: {service: gatehouse.auth.svc.cluster.local, port: 9001, timeout: 1s, statusOnError: \"503\"}"},
	{codeIstioNoRule, Error, "A policy that fits no request", "Every request gets through, with the identity headers that the client wrote.", "Give it one rule, which fits all.", "rules: [{}]"},
	{codeIstioPartial, Error, "Only some requests are checked", "A client asks for a path, method or host that no rule names, and sends x-user-id: root: nobody checks, nobody removes it.", "Check everything, and let Gatehouse's routes choose: {anonymous: true} for what is public.", "rules: [{}]"},
	{codeIstioTimeout, Warning, "The time of a check is not bounded well", attackTimeout, "Give it a second, and Gatehouse less (redis.timeout).", "timeout: 1s"},
	{codeIstioStatus, Warning, "An outage looks like a refusal", attackStatus, "Answer 503.", "statusOnError: \"503\""},
	{codeIstioHTTP, Warning, "The check goes over HTTP", attackHTTP, "Use gRPC.", "envoyExtAuthzGrpc: {service: gatehouse.auth.svc.cluster.local, port: 9001, timeout: 1s, statusOnError: \"503\"}"},
	{codeIstioHidden, Warning, "Gatehouse doesn't see a credential", attackHidden, "Let these headers through to the check.", "includeRequestHeadersInCheck: [cookie, authorization, x-internal-api-key, origin, sec-fetch-*, upgrade]"},
	{codeIstioCrossSite, Error, "Gatehouse can't tell requests of other sites", attackCrossSite, "Let the headers by which browsers say so through to the check.", "includeRequestHeadersInCheck: [cookie, authorization, x-internal-api-key, origin, sec-fetch-*, upgrade]"},
	{codeIstioIdentity, Error, "The identity doesn't arrive, the client's does", attackIdentity, "Take the identity headers over from the answer.", "headersToUpstreamOnAllow: [x-user-id, x-user-email, x-user-roles, x-org-id]"},
	{codeIstioClearRoute, Warning, "The route is chosen again after the check", attackClearRoute, "Keep the route that was checked.", "clearRouteCache: false"},
	{codeIstioBody, Warning, "Bodies are held for the check", attackBody, "Take includeRequestBodyInCheck out.", ""},
	{codeIstioPaths, Warning, "Forms of a path are kept apart", attackSlashes, "Merge slashes; Gatehouse refuses the escaped ones.", "pathNormalization: {normalization: MERGE_SLASHES}"},
	{codeIstioOpen, Error, "An unchecked path lets identity headers through", "A client asks for a path that notPaths leave out, and sends x-user-id: root, or x_user_id. Nobody removes it, and the service believes it.", "Leave out no more than a route of the VirtualService takes that removes every spelling. Headers with underscores go by the settings of the gateway's proxy: connectionSettings: {profile: EDGE}.", "headers: {request: {remove: [x-user-id, x-user-email, x-user-roles, x-org-id]}}"},
	{codeIstioElsewhere, Error, "What becomes of unchecked paths is not in these files", "Unless the VirtualService removes it, a client's own x-user-id: root arrives at the service.", "Give the file with the VirtualService, too, or check everything: {anonymous: true} is for what is public.", "rules: [{}]"},

	{codeEGFailOpen, Error, "A check that fails lets the request pass", attackFailOpen, "Refuse what could not be checked.", "failOpen: false"},
	{codeEGOverride, Error, "A policy takes the check away", "Requests to this route get through unasked: the policy that is nearer replaces the Gateway's as a whole.", "Merge it with the Gateway's policy, or repeat extAuth in it. A route that is unchecked on purpose takes the identity headers out, in each of its rules; give its file, too.", "mergeType: StrategicMerge"},
	{codeEGNarrow, Warning, "Only some routes are checked", "The route that is added tomorrow is open, and lets the identity headers through that the client wrote.", "Attach the check to the Gateway.", "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: eg}]"},
	{codeEGTimeout, Warning, "The time of a check is not bounded well", attackTimeout, "Give it a second, and Gatehouse less (redis.timeout).", "timeout: 1s"},
	{codeEGStatus, Warning, "An outage looks like a refusal", attackStatus, "Answer 503.", "statusOnError: 503"},
	{codeEGHTTP, Warning, "The check goes over HTTP", attackHTTP, "Use gRPC.", "grpc: {backendRefs: [{name: gatehouse, port: 9001}]}"},
	{codeEGHidden, Warning, "Gatehouse doesn't see a credential", attackHidden, "Let these headers through to the check.", "headersToExtAuth: [cookie, authorization, x-internal-api-key, origin, sec-fetch-site, sec-fetch-mode, sec-fetch-dest, accept, upgrade]"},
	{codeEGCrossSite, Error, "Gatehouse can't tell requests of other sites", attackCrossSite, "Let the headers by which browsers say so through to the check.", "headersToExtAuth: [cookie, authorization, x-internal-api-key, origin, sec-fetch-site, sec-fetch-mode, sec-fetch-dest, accept, upgrade]"},
	{codeEGIdentity, Error, "The identity doesn't arrive, the client's does", attackIdentity, "Take the identity headers over from the answer.", "headersToBackend: [x-user-id, x-user-email, x-user-roles, x-org-id]"},
	{codeEGRecompute, Warning, "The route is chosen again after the check", attackClearRoute, "Keep the route that was checked.", "recomputeRoute: false"},
	{codeEGBody, Warning, "Bodies are held for the check", attackBody, "Take bodyToExtAuth out.", ""},
	{codeEGPaths, Warning, "Forms of a path are kept apart", attackSlashes, "Refuse what can be read in two ways.", "path: {escapedSlashesAction: RejectRequest}"},
	{codeEGUnderscores, Warning, "Headers with underscores get through", attackUnderscore, "Leave Envoy Gateway's default.", "headers: {withUnderscoresAction: RejectRequest}"},
}
