package tests

// The log that a server process writes.

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// The server serves while its stderr is a pipe that nothing reads.
func TestTheServerServesWhileNobodyReadsItsLog(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	d := makeDaemon(t)
	d.stderr = write
	d.start()
	write.Close()
	for i := range 100 { // more than 100 kB; a pipe holds 64 kB
		path := fmt.Sprintf("/maybe?environment=e%d&id=12345678&holder=%s", i, strings.Repeat("%01", 256))
		if code, body := d.call("POST", path); code != 201 {
			t.Fatal(code, body)
		}
	}
	d.cmd.Process.Signal(os.Interrupt)
	start := time.Now()
	if err := d.cmd.Wait(); err != nil || time.Since(start) > 10*time.Second {
		t.Errorf("it ended with %v after %v", err, time.Since(start))
	}
}

func TestTheLogCanBeJSON(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "CALL_ME_LOG=json")
	d.call("POST", "/maybe?environment=uat&id=12345678&holder=ann%0a")
	// The log is written after the reply.
	eventually(t, "the grant is in the log", func() bool { return strings.Contains(d.log.String(), "granted") })
	d.cmd.Process.Signal(os.Interrupt)
	d.cmd.Wait()
	messages := []string{}
	for line := range strings.Lines(d.log.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if messages = append(messages, fmt.Sprint(fields["msg"])); fields["msg"] == "granted" && fields["holder"] != "ann\\n" {
			t.Errorf("%s", line)
		}
	}
	if got := strings.Join(messages, ", "); got != "serving, granted, stopping" {
		t.Errorf("the log has %s", got)
	}
}
