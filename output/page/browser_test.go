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
	"slices"
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

	"github.com/modtrace/modtrace/test/recorded"
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

// TestColourBlind only makes pictures, to be looked at.
func TestColourBlind(t *testing.T) {
	if *shots == "" {
		t.Skip("no -shots")
	}
	b := newTab(newBrowser(t), t)
	b.size(1200, false)
	b.do(chromedp.Navigate(serve(t, pageOf(t, recorded.File(t, "amd64-6.12-hang-netdev")))))
	for _, kind := range []emulation.SetEmulatedVisionDeficiencyType{
		emulation.SetEmulatedVisionDeficiencyTypeDeuteranopia, emulation.SetEmulatedVisionDeficiencyTypeTritanopia,
		emulation.SetEmulatedVisionDeficiencyTypeAchromatopsia,
	} {
		call(b, emulation.SetEmulatedVisionDeficiency, emulation.SetEmulatedVisionDeficiencyParams{Type: kind})
		b.shoot("blind-"+string(kind), 1200)
	}
}

func newTab(browser context.Context, t *testing.T) *tab {
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
	c, cancel := context.WithTimeout(b, time.Minute)
	defer cancel()
	if err := chromedp.Do(c, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// eval gives what a script comes to.
func eval[T any](b *tab, script string) T {
	b.t.Helper()
	c, cancel := context.WithTimeout(b, time.Minute)
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

// heard gives what the page complained of and asked for so far.
func (b *tab) heard() (problems, requests []string) {
	b.t.Helper()
	b.do(chromedp.Sleep(200 * time.Millisecond)) // for what is on its way
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.problems), slices.Clone(b.requests)
}

// quiet fails if the page complained, or asked for anything but itself.
func (b *tab) quiet(url string) {
	b.t.Helper()
	problems, requests := b.heard()
	for _, p := range problems {
		b.t.Errorf("the browser complains: %s", p)
	}
	for _, r := range requests {
		if r, _, _ := strings.Cut(r, "#"); r != url {
			b.t.Errorf("the page asks the network for %s", r)
		}
	}
	if len(requests) == 0 {
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

func pageOf(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	d := New(&b, Options{})
	readAll(t, d, files...)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// overflow names what is wider than the window, "" for nothing.
const overflow = `(() => {
  const w = document.documentElement.clientWidth;
  for (const e of document.querySelectorAll(".u, .card, .wide")) { // some of which clip what is in them
    if (e.scrollWidth > e.clientWidth + 1) return e.tagName + "." + e.className + " holds " + e.scrollWidth + " in " + e.clientWidth + ": " + e.textContent.slice(0, 80);
  }
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
		"real":    pageOf(t, recorded.Files(t)...),
		"one":     pageOf(t, recorded.File(t, "amd64-6.12-slow")),
		"empty":   pageOf(t),
		"all":     everything(t),
		"hostile": hostilePage(t),
	}
	for name, page := range pages {
		t.Run(name, func(t *testing.T) {
			url := serve(t, page)
			b := newTab(browser, t)
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

// TestFilters goes through the boxes above the list as a reader does.
func TestFilters(t *testing.T) {
	b := newTab(newBrowser(t), t)
	b.size(1400, false)
	url := serve(t, everything(t))
	b.do(chromedp.Navigate(url))
	const listed = `[...document.querySelectorAll("#list > details:not([hidden])")].map(d => d.dataset.module).join(" ")`
	set := func(id, value string) {
		t.Helper()
		eval[bool](b, fmt.Sprintf(`(() => { const e = document.getElementById(%q); e.value = %q;
			e.dispatchEvent(new Event("input", {bubbles: true})); return e.dispatchEvent(new Event("change", {bubbles: true})) })()`, id, value))
	}
	for _, c := range []struct{ id, value, want string }{
		{"f-module", "", "stuck tun slow nf_short"},
		{"f-module", "S", "stuck slow nf_short"},
		{"f-module", "nf-*", "nf_short"},
		{"f-module", "s?ow", "slow"},
		{"f-module", "[a", ""},
		{"f-module", "", "stuck tun slow nf_short"},
		{"f-state", "refused", "tun"},
		{"f-state", "", "stuck tun slow nf_short"},
		{"f-least", "91", "stuck slow"},
		{"f-least", "1,5 s", "stuck slow"},
		{"f-least", "1min", "stuck"},
		{"f-least", "nonsense", "stuck tun slow nf_short"},
		{"f-least", "", "stuck tun slow nf_short"},
		{"f-host", "beta, 7.3.4", "stuck nf_short"},
		{"f-host", "", "stuck tun slow nf_short"},
		{"f-sort", "slow", "stuck slow nf_short tun"},
		{"f-sort", "time", "slow nf_short tun stuck"},
		{"f-sort", "late", "stuck tun nf_short slow"},
		{"f-sort", "module", "nf_short slow stuck tun"},
		{"f-sort", "grave", "stuck tun slow nf_short"},
	} {
		set(c.id, c.value)
		if got := eval[string](b, listed); got != c.want {
			t.Errorf("%s = %q leaves %q, want %q", c.id, c.value, got, c.want)
		}
	}
	set("f-least", "nonsense")
	if got := eval[string](b, `document.getElementById("f-least").getAttribute("aria-invalid")`); got != "true" {
		t.Errorf("a duration that is none is marked %q", got)
	}
	b.do(chromedp.Click(chromedp.CSS("#filters button[type=reset]")))
	set("f-module", "none such")
	if !eval[bool](b, `!document.getElementById("none").hidden`) {
		t.Error("nothing says that nothing matches")
	}
	b.do(chromedp.Click(chromedp.CSS("#filters button[type=reset]")), chromedp.Click(chromedp.CSS(".worst li a")))
	if got := eval[string](b, `[...document.querySelectorAll("#list > details[open]")].map(d => d.dataset.module).join(" ")`); got != "stuck" {
		t.Errorf("the link to the worst opens %q", got)
	}
	b.do(chromedp.Click(chromedp.CSS(".legend a[data-show=refused]")))
	if got := eval[string](b, listed); got != "tun" {
		t.Errorf("the link to those refused leaves %q", got)
	}
	b.quiet(url)
}

// TestWithoutScripts reads the page where scripts are off, and on paper.
func TestWithoutScripts(t *testing.T) {
	b := newTab(newBrowser(t), t)
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	url := serve(t, everything(t))
	b.do(chromedp.Navigate(url + "#u1"))
	if !eval[bool](b, `document.getElementById("filters").hidden`) {
		t.Error("filters are shown that do nothing")
	}
	if got := eval[int](b, `document.querySelectorAll("#list > details").length`); got != 4 {
		t.Errorf("%d attempts are listed", got)
	}
	if !eval[bool](b, `document.querySelector("#u1").getBoundingClientRect().height > 300`) {
		t.Error("a link to an attempt does not open it")
	}
	b.media("print", "dark")
	if got := eval[string](b, `getComputedStyle(document.body).backgroundColor`); got != "rgb(255, 255, 255)" {
		t.Errorf("paper is printed %s", got)
	}
	b.shoot("print-700", 700)
	b.quiet(url)
}

// TestBrowserSees makes sure that the tests above would see what they look for.
func TestBrowserSees(t *testing.T) {
	browser := newBrowser(t)
	for name, page := range map[string]string{
		"scripts that the policy forbids": `<meta http-equiv="Content-Security-Policy" content="` + policy() + `"><script>alert(1)</script>`,
		"styles that the policy forbids":  `<meta http-equiv="Content-Security-Policy" content="` + policy() + `"><p style="color:red">`,
		"errors in scripts":               `<script>null.x</script>`,
		"pictures":                        `<img src="x.png">`,
	} {
		b := newTab(browser, t)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "<!DOCTYPE html>"+page+"<table width=3000><td>wide</table>") //nolint:errcheck // the browser would tell
		}))
		b.size(400, false)
		b.do(chromedp.Navigate(s.URL + "/report.html"))
		problems, requests := b.heard()
		if len(problems) == 0 && len(requests) < 2 {
			t.Errorf("%s are not seen", name)
		}
		if eval[string](b, overflow) == "" {
			t.Error("what is too wide is not seen")
		}
		s.Close()
	}
}

// pale names text that stands out too little from what is behind it, by the contrast that
// the Web Content Accessibility Guidelines (1.4.3) ask for.
const pale = `(() => {
  const channels = c => c.match(/[\d.]+/g).map(Number);
  const light = c => channels(c).slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!(channels(c)[3] === 0)) return c; } return "rgb(255, 255, 255)"; };
  const bad = new Set();
  for (const e of document.body.querySelectorAll("*")) {
    if (e.closest("svg, script, option") || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const s = getComputedStyle(e), a = light(s.color), b = light(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < (parseFloat(s.fontSize) >= 24 ? 3 : 4.5)) bad.add(e.tagName + "." + e.className + " " + s.color + " on " + behind(e) + ": " + ratio.toFixed(2));
  }
  return [...bad].join("\n");
})()`

func TestContrast(t *testing.T) {
	b := newTab(newBrowser(t), t)
	b.do(chromedp.Navigate(serve(t, pageOf(t, recorded.Files(t)...))))
	check := func(name string) {
		t.Helper()
		eval[int](b, `[...document.querySelectorAll("details")].filter(d => d.open = true).length`)
		for _, dark := range []bool{false, true} {
			b.size(1400, dark)
			if text := eval[string](b, pale); text != "" {
				t.Errorf("%s, dark %v:\n%s", name, dark, text)
			}
		}
	}
	check("real captures")
	b.do(chromedp.Navigate(serve(t, everything(t))))
	check("made up")
	eval[bool](b, `document.body.append(Object.assign(document.createElement("p"), {textContent: "x"})), document.body.lastChild.style.color = "#999", true`)
	b.size(1400, false)
	if eval[string](b, pale) == "" {
		t.Error("grey on white is not seen")
	}
}

// TestOpensFast opens a thousand attempts.
func TestOpensFast(t *testing.T) {
	var files []string
	for range 14 {
		files = append(files, recorded.Files(t)...)
	}
	page := pageOf(t, files...)
	b := newTab(newBrowser(t), t)
	b.size(1400, false)
	b.do(chromedp.Navigate(serve(t, page)))
	const most = 20_000 // ms, on a machine that is busy with other things
	took := eval[float64](b, `performance.getEntriesByType("navigation")[0].loadEventEnd`)
	filter := eval[float64](b, `(() => { const t = performance.now(), e = document.getElementById("f-module"); e.value = "hang";
		e.dispatchEvent(new Event("input", {bubbles: true})); document.body.offsetHeight; return performance.now() - t })()`)
	if took <= 0 || took > most || filter > most/4 {
		t.Errorf("%d bytes take %.0f ms to open and %.0f ms to filter", len(page), took, filter)
	}
	t.Logf("%d bytes take %.0f ms to open and %.0f ms to filter", len(page), took, filter)
}
