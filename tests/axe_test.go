//go:build engines && linux

package tests

import (
	"fmt"
	"os"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// axe finds nothing on the page, in all of its states. The variable AXE has the path of
// axe.min.js; .ci/engines sets it.
func TestAxe(t *testing.T) {
	axe, err := os.ReadFile(os.Getenv("AXE"))
	if err != nil {
		missing(t, "axe-core (.ci/engines has it)")
	}
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat:blue+green,perf,demo,web,mine,paused,kept")
	for i, call := range []string{"uat&holder=github:acme/shop/run/1/deploy&ttl=3m&url=https://ci.example/1&reason=see+https://x.example", "uat&holder=bob",
		"perf&holder=eve&ttl=2h", "mine&holder=ann&ttl=2h", "uat&holder=joe&wait=0s&priority=3", "perf&holder=ann&wait=0s", "kept&environment=uat&holder=both&wait=0s"} {
		s.call("POST", fmt.Sprint("/maybe?id=12345678-", i, "&environment=", call))
	}
	s.call("PUT", "/pause?environment=paused&holder=root&for=2h&reason=upgrade")
	v := newVisit(t, s.base, "ann")
	for _, path := range []string{"/", "/?since=7d&show=held", "/?q=nothing-has-this", "/?view=tv", "/?environment=uat", "/?environment=uat&act=wait", "/?environment=paused", "dialog", "lost"} {
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{1280, 390} {
				at := path
				if path == "dialog" || path == "lost" {
					at = "/"
				}
				v.do(emulation.SetDeviceMetricsOverride(width, 900, 1, width < 600),
					emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
					chromedp.Navigate(s.base+at))
				v.says("live", pageTime)
				if path == "dialog" {
					v.press(`[aria-label^="More for uat blue"]`)
					v.press(`#dialog [aria-label^="Force release"]`)
					v.do(chromedp.WaitVisible("#dialog form", chromedp.ByQuery))
					v.script(`say(subject, "no answer")`)
				}
				if path == "lost" {
					v.script(`(problem = "the server does not answer", showConnection(), say($("e-uat"), "the lease is over"))`)
				}
				var found string
				await := func(p *cdpruntime.EvaluateParams) *cdpruntime.EvaluateParams { return p.WithAwaitPromise(true) }
				v.do(chromedp.Evaluate(string(axe), nil), chromedp.Evaluate(`axe.run().then((r) => r.violations.map((v) =>
					v.id + ": " + v.help + "\n" + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200) + "\n" + n.failureSummary).join("\n")).join("\n"))`, &found, await))
				if found != "" {
					t.Errorf("%s, %s, %d wide: %s", path, scheme, width, found)
				}
			}
		}
	}
}
