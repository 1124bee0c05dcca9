package main

// The proxies of deploy/, with TLS, before a real server.

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// A proxy is a process in front of a daemon.
type proxy struct {
	t      *testing.T
	host   string // https://127.0.0.1:port
	folder string
	argv   []string
	end    os.Signal
	log    *lockedBuffer
	cmd    *exec.Cmd
}

var proxyKinds = []struct {
	command, file string
	end           os.Signal // ends it at once, with every connection
	config        func(text string, p *proxy, d *daemon) string
	argv          func(config string) []string
}{
	{"nginx", "deploy/nginx.conf", os.Interrupt, func(text string, p *proxy, d *daemon) string {
		text = strings.NewReplacer("127.0.0.1:8000", d.host, "listen 443 ssl", "listen "+strings.TrimPrefix(p.host, "https://")+" ssl",
			"/etc/ssl/call-me.pem", p.folder+"/cert.pem", "/etc/ssl/call-me.key", p.folder+"/key.pem").Replace(text)
		temporary := ""
		for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			temporary += fmt.Sprintf("%s_temp_path %s;\n", kind, p.folder)
		}
		return fmt.Sprintf("daemon off; pid %s/pid; error_log stderr; events { }\nhttp { access_log off;\n%s%s}\n", p.folder, temporary, text)
	}, func(config string) []string { return []string{"-c", config} }},
	{"caddy", "deploy/Caddyfile", os.Kill, func(text string, p *proxy, d *daemon) string {
		text = strings.NewReplacer("127.0.0.1:8000", d.host, "call.me.example.com {", fmt.Sprintf("%s {\n\ttls %s/cert.pem %[2]s/key.pem", p.host, p.folder)).Replace(text)
		return "{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + text
	}, func(config string) []string { return []string{"run", "--adapter", "caddyfile", "--config", config} }},
}

func (p *proxy) start() {
	p.t.Helper()
	p.cmd = exec.Command(p.argv[0], p.argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.Env = append(os.Environ(), "HOME="+p.folder)
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, p.argv[0]+" listens", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.host, "https://"))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (p *proxy) stop() {
	p.cmd.Process.Signal(p.end)
	p.cmd.Wait()
}

func TestBehindAProxyTheLineWorksAsWithoutOne(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no SIGINT")
	}
	for _, kind := range proxyKinds {
		t.Run(kind.command, func(t *testing.T) {
			path, err := exec.LookPath(kind.command)
			if err != nil {
				missing(t, kind.command)
			}
			text, err := os.ReadFile(kind.file)
			if err != nil {
				t.Fatal(err)
			}
			d := newDaemon(t)
			p := &proxy{t: t, host: fmt.Sprint("https://127.0.0.1:", freePort()), folder: t.TempDir(), end: kind.end, log: &lockedBuffer{}}
			a := newAuthority(t)
			a.issue(filepath.Join(p.folder, "cert.pem"), filepath.Join(p.folder, "key.pem"))
			config := filepath.Join(p.folder, "config")
			if err := os.WriteFile(config, []byte(kind.config(string(text), p, d)), 0o644); err != nil {
				t.Fatal(err)
			}
			p.argv = append([]string{path}, kind.argv(config)...)
			p.start()
			defer func() {
				p.stop()
				if t.Failed() {
					t.Logf("%s said:\n%s", kind.command, p.log)
				}
			}()
			d.env = append(d.env, "HOST="+p.host, "CALL_ME_CA_FILE="+a.file)

			events := d.follow(p.host, a.trust())
			first, out := d.client("first", "request", "uat")
			if err := first.Run(); err != nil {
				t.Fatal(out)
			}
			if text := <-events; !strings.Contains(text, "first") {
				t.Errorf("the first event is %s", text)
			}
			inLine := func(holder string) (*exec.Cmd, *lockedBuffer) {
				cmd, out := d.client(holder, "request", "uat")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				eventually(t, holder+" is in line", func() bool { return strings.Contains(out.String(), "in line") })
				return cmd, out
			}
			next, said := inLine("next")
			killed, _ := inLine("killed")
			killed.Process.Kill()
			killed.Wait()
			eventually(t, "the server sees that the killed client is gone", func() bool {
				_, body := d.call("GET", "/environments?environment=uat")
				return !strings.Contains(body, `"killed"`) || strings.Count(body, `"connected":true`) == 1
			})

			p.stop() // a reload, a crash: who waits notices nothing
			p.start()
			eventually(t, "next is back", func() bool {
				_, body := d.call("GET", "/environments?environment=uat")
				return strings.Contains(body, `"connected":true`)
			})
			release, out := d.client("first", "release", "uat")
			if err := release.Run(); err != nil {
				t.Fatal(out)
			}
			if err := next.Wait(); err != nil {
				t.Errorf("%v\n%s", err, said)
			}
		})
	}
}

// follow returns the events of /events, as they come through the proxy.
func (d *daemon) follow(host string, trust *tls.Config) <-chan string {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", host+"/events", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("X-API-KEY", testKey)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: trust}}
	response, err := client.Do(r)
	if err != nil || response.StatusCode != 200 {
		d.t.Fatal(err, response)
	}
	events := make(chan string, 100)
	go func() {
		defer response.Body.Close()
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			if data, isData := strings.CutPrefix(lines.Text(), "data: "); isData && strings.Contains(data, "holder") {
				events <- data
			}
		}
	}()
	return events
}
