//go:build linux

package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// status shows any number of leases. 250,000 are more than 64 MB of JSON. The short form has
// fewer.
func TestStatusOfVeryManyLeases(t *testing.T) {
	leases := 250_000
	if leftOut(t, "250,000 leases") {
		leases = 2_000
	}
	served, d := newServed(t)
	var next atomic.Int64
	closedLoop(128, leases, func(int) {
		i := next.Add(1)
		served.want(t, http.StatusCreated, http.MethodPost,
			fmt.Sprintf("environment-%06[1]d&id=request-%[1]d&holder=github:acme/shop/run/%[1]d/deploy&ttl=2h&reason=release+%[1]d", i))
	})
	cmd, out := d.client("me", "status", "--json")
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %.500s", err, out)
	}
	var all environmentsJSON
	if err := json.Unmarshal([]byte(out.String()), &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Environments) != leases {
		t.Errorf("%d environments, want %d", len(all.Environments), leases)
	}
	for _, e := range all.Environments {
		if len(e.Slots) != 1 || e.Slots[0].Lease == nil || e.Slots[0].Lease.Environment != e.Environment {
			t.Fatalf("%+v", e)
		}
	}
	cmd, out = d.client("me", "status")
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %.500s", err, out)
	}
	if rows := strings.Count(out.String(), "github:acme"); rows != leases {
		t.Errorf("%d rows, want %d", rows, leases)
	}
	t.Logf("the server has %d MB", d.memory()>>20)
}
