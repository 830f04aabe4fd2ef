package page

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var shots = flag.String("shots", "", "write screenshots to this directory")

// findBrowser gives the path of a Chromium. Without one the test cannot be run, which is
// a failure where it has to be.
func findBrowser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless-shell"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const text = "no Chromium in PATH (Debian: apt install chromium)"
	if os.Getenv("MODTRACE_LAB") == "1" {
		t.Fatal(text)
	}
	t.Skip(text)
	return ""
}

// tab is a browser's tab, and all that it complains of and asks the network for.
type tab struct {
	context.Context
	t        *testing.T
	mu       sync.Mutex
	problems []string
	requests []string
}

func newBrowser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(findBrowser(t)))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	browser, end := chromedp.NewContext(allocator)
	t.Cleanup(end)
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("starting the browser: %v", err)
	}
	return browser
}

func newTab(t *testing.T, browser context.Context) *tab {
	t.Helper()
	c, end := chromedp.NewContext(browser)
	t.Cleanup(end)
	b := &tab{Context: c, t: t}
	listen(b, network.RequestWillBeSent, func(e network.EventRequestWillBeSent) { b.requests = append(b.requests, e.Request.URL) })
	listen(b, log.EntryAdded, func(e log.EventEntryAdded) { b.problems = append(b.problems, e.Entry.Text) })
	listen(b, runtime.ExceptionThrown, func(e runtime.EventExceptionThrown) { b.problems = append(b.problems, e.ExceptionDetails.Text) })
	listen(b, runtime.ConsoleAPICalled, func(e runtime.EventConsoleAPICalled) { b.problems = append(b.problems, "console."+string(e.Type)) })
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	call(b, runtime.Enable, cdp.Empty{})
	return b
}

// listen has each event of a kind told until the tab is closed.
func listen[E any](b *tab, kind cdp.Event[E], tell func(E)) {
	events := chromedp.Events(b, kind)
	go func() {
		for e, err := range events {
			if err != nil {
				return
			}
			b.mu.Lock()
			tell(e)
			b.mu.Unlock()
		}
	}()
}

func call[P, R any](b *tab, command cdp.Command[P, R], p P) {
	b.t.Helper()
	if _, err := chromedp.Call(b, command, p); err != nil {
		b.t.Fatalf("%s: %v", command.Method, err)
	}
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	c, cancel := context.WithTimeout(b, 2*time.Minute)
	defer cancel()
	if err := chromedp.Do(c, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// eval gives what a script comes to.
func eval[T any](b *tab, script string) T {
	b.t.Helper()
	c, cancel := context.WithTimeout(b, 2*time.Minute)
	defer cancel()
	v, err := chromedp.Run(c, chromedp.Evaluate[T](script))
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

func (b *tab) size(width int, dark bool) {
	b.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.do(chromedp.EmulateViewport(int64(width), 900))
	b.media("", scheme)
}

func (b *tab) media(kind, scheme string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Media: kind, Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
}

// quiet fails if the page complained, or asked for anything but itself.
func (b *tab) quiet(url string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		b.t.Errorf("the browser complains: %s", p)
	}
	for _, r := range b.requests {
		if r, _, _ := strings.Cut(r, "#"); r != url {
			b.t.Errorf("the page asks the network for %s", r)
		}
	}
	if len(b.requests) == 0 {
		b.t.Error("not even the page itself was seen to be asked for")
	}
}

// shoot writes a picture of the page, or of as much of its beginning as one can look at.
func (b *tab) shoot(name string, width int) {
	b.t.Helper()
	if *shots == "" {
		return
	}
	const most = 2600
	b.do(chromedp.EmulateViewport(int64(width), min(eval[int64](b, "document.documentElement.scrollHeight"), most)))
	png, err := chromedp.Run(b, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*shots, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// serve gives the URL of a page, and fails the test if anything else is asked for.
func serve(t *testing.T, page []byte) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/report.html" {
			t.Errorf("the browser asks for %s", r.URL.Path)
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		w.Write(page) //nolint:errcheck // the browser would tell
	}))
	t.Cleanup(s.Close)
	return s.URL + "/report.html"
}

func pageOf(t testing.TB, o Options, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	d := New(&b, o)
	readAll(t, d, files...)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// overflow names what is wider than the window, "" for nothing.
const overflow = `(() => {
  const w = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= w) return "";
  for (const e of document.body.querySelectorAll("*")) {
    const r = e.getBoundingClientRect();
    if (r.right > w + 1 && r.width > 0) return e.tagName + "." + (e.getAttribute("class") || "") + " reaches " + r.right + " of " + w;
  }
  return "something";
})()`

func TestBrowser(t *testing.T) {
	browser := newBrowser(t)
	pages := map[string][]byte{
		"real":    pageOf(t, Options{}, realCaptures(t)...),
		"one":     pageOf(t, Options{}, "../../tracer/testdata/amd64-6.12-slow.ndjson"),
		"empty":   pageOf(t, Options{}),
		"all":     everything(t),
		"hostile": hostilePage(t),
	}
	for name, page := range pages {
		t.Run(name, func(t *testing.T) {
			url := serve(t, page)
			b := newTab(t, browser)
			b.do(chromedp.Navigate(url))
			for _, width := range []int{400, 1000, 1400, 1600} {
				for _, dark := range []bool{false, true} {
					b.size(width, dark)
					if text := eval[string](b, overflow); text != "" {
						t.Errorf("closed, at %d px: %s", width, text)
					}
					if width != 1400 {
						b.shoot(fmt.Sprintf("%s-%d%s", name, width, map[bool]string{true: "-dark"}[dark]), width)
					}
				}
			}
			eval[int](b, `[...document.querySelectorAll("details")].filter(d => d.open = true).length`)
			b.size(1000, false)
			b.shoot(name+"-open-1000", 1000)
			b.size(400, true)
			b.shoot(name+"-open-400-dark", 400)
			for _, width := range []int{320, 400, 1000, 1400} {
				b.size(width, false)
				if text := eval[string](b, overflow); text != "" {
					t.Errorf("opened, at %d px: %s", width, text)
				}
			}
			b.quiet(url)
		})
	}
}
