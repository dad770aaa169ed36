//go:build unix

// Package redistest starts Redis as it is run in production, for tests: one
// server, a master with replicas behind Sentinels, a Cluster with replicas; each
// with or without TLS, client certificates and passwords.
//
//	set := redistest.StartSentinels(t, redistest.SentinelOptions{Replicas: 2, Sentinels: 3})
//	client, err := session.Open(set.URL(), session.OpenOptions{})
//	old := set.Master()
//	old.Kill()
//	set.AwaitOther(old)
//
//	cluster := redistest.StartCluster(t, redistest.ClusterOptions{Masters: 3, Replicas: 1})
//	cluster.Owner("sess:id").Freeze()
//
// All servers end with their test, those that were frozen, too. They listen on
// 127.0.0.1 and keep nothing on disk. Whatever goes wrong ends the test.
package redistest
