package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A server ends when another has led for long with its address, but not when nobody could see
// meanwhile whether its own last key has ended.
func TestATwinIsSeenWithoutAPause(t *testing.T) {
	const own = "http://server.example"
	led := etcdMeta{term: 7, leader: &leaderInfo{URL: own}}
	for _, r := range []struct {
		name string
		away error
		want error
	}{{"etcd answers", nil, errTwin}, {"etcd is away", errStoreAway, nil}} {
		synctest.Test(t, func(t *testing.T) {
			c := &cluster{candidate: &candidate{times: newEtcdTimes(8 * time.Second)}}
			c.info.Store(&leaderInfo{URL: own})
			for _, err := range []error{nil, r.away} {
				if got := c.checkTwin(led, err); got != err {
					t.Errorf("%s: %v", r.name, got)
				}
			}
			time.Sleep(time.Minute)
			if got := c.checkTwin(led, nil); !errors.Is(got, r.want) {
				t.Errorf("%s: after a minute %v, want %v", r.name, got, r.want)
			}
		})
	}
}
