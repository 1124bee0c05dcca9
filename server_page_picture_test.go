package main

import (
	"bytes"
	"context"
	"flag"
	"image/png"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

var draw = flag.Bool("draw", false, "TestThePictureOfThePage writes docs/page.png and docs/page-dark.png")

// TestThePictureOfThePage draws the pictures that README shows:
//
//	go test -run TestThePictureOfThePage . -draw
func TestThePictureOfThePage(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	switch {
	case err != nil && os.Getenv("CI") == "true":
		t.Fatal("chromium is not there; install it")
	case err != nil:
		t.Skip("chromium is not there")
	}
	s := pagePictureSite(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser), chromedp.NoSandbox, chromedp.DisableGPU)
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	defer cancel()
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {}))
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	defer cancel()
	login := strings.Replace(s.url, "://", "://ann:"+testKey+"@", 1)
	for scheme, file := range map[string]string{"light": "docs/page.png", "dark": "docs/page-dark.png"} {
		var picture []byte
		err := chromedp.Run(ctx, chromedp.EmulateViewport(1000, 100, chromedp.EmulateScale(1)),
			emulation.SetTimezoneOverride("Europe/Berlin"),
			emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
			chromedp.Navigate(login+"/page.css"), chromedp.Navigate(s.url+"/"),
			chromedp.WaitVisible(".state.on", chromedp.ByQuery), chromedp.FullScreenshot(&picture, 100))
		if err != nil {
			t.Fatal(err)
		}
		drawn, err := png.DecodeConfig(bytes.NewReader(picture))
		if err != nil || drawn.Width != 1000 || drawn.Height > 700 {
			t.Errorf("%s: %v, %v", scheme, drawn, err)
		}
		if *draw {
			if err := os.WriteFile(file, picture, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if shown, err := os.ReadFile(file); err != nil || len(shown) > 200_000 {
			t.Errorf("%s has %d bytes, %v", file, len(shown), err)
		} else if old, err := png.DecodeConfig(bytes.NewReader(shown)); err != nil || old.Width != drawn.Width {
			t.Errorf("%s is %v, drawn %v; draw it again: go test -run %s . -draw", file, old, drawn, t.Name())
		}
	}
}

// pagePictureSite serves a few environments: free and held ones, one of the viewer, a queue.
func pagePictureSite(t *testing.T) *site {
	t.Helper()
	const declared = "demo,perf:2,staging,uat:blue+green"
	path := tempDB(t)
	w := newPageWeek(t, declared, []float64{.1, .45, .5, .9}, time.Now())
	w.hold("perf", "perf-1", "gitlab:acme/billing/job/82/e2e", "load test", 10*time.Minute, 50*time.Minute)
	w.hold("staging", "staging", "ann", "showing it to sales", 20*time.Minute, 4*time.Hour)
	w.hold("uat", "blue", "github:acme/shop/run/4711/deploy", "release 4.17", 12*time.Minute, 2*time.Hour)
	w.hold("uat", "green", "jenkins:nightly/4242", "", 25*time.Minute, 35*time.Minute)
	w.write(path)
	g := &rig{t: t, path: path, limits: testLimits}
	if err := g.declared.Decode(declared); err != nil {
		t.Fatal(err)
	}
	g.open()
	s := siteOf(t, g)
	for _, waiter := range []string{"id=waiting-1&holder=github:acme/shop/run/4712/deploy", "id=waiting-2&holder=bob@laptop"} {
		r, err := http.NewRequest("POST", s.url+"/maybe?environment=uat&wait=1m&"+waiter, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-API-KEY", testKey)
		go func() { // it is answered when the server stops
			if answer, err := http.DefaultTransport.RoundTrip(r); err == nil {
				answer.Body.Close()
			}
		}()
		within(t, "it waits", func() bool {
			for _, x := range s.server.keeper.published.Load().find("uat").queue {
				if strings.Contains(waiter, x.id) {
					return true
				}
			}
			return false
		})
	}
	return s
}
