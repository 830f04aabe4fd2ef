package tracer_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/tracer"
)

// A program that prints every unload on the machine until it is interrupted. It
// needs the privileges that modtrace itself needs, and says so when it lacks
// them.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	t, err := tracer.Start(ctx, tracer.Options{})
	var unable *object.Unable
	if errors.As(err, &unable) {
		log.Printf("%s: %s\ntry: %s", unable.What, unable.Why, unable.Remedy)
		return
	}
	if err != nil {
		log.Print(err)
		return
	}
	defer func() {
		if err := t.Close(); err != nil {
			log.Print(err)
		}
	}()

	for u := range t.Unloads() { // ends when ctx does
		fmt.Printf("%s took %v\n", u.Module, time.Duration(u.Duration))
		for _, phase := range u.Phases {
			fmt.Printf("  %-12s %v, asleep for %v of it\n", phase.Name,
				time.Duration(phase.Duration), time.Duration(phase.OffCPU))
		}
		if !u.Result.OK {
			fmt.Printf("  refused: %s\n", u.Result.Reason)
		}
	}
	if err := t.Err(); err != nil {
		log.Print(err)
	}

	stats := t.Stats()
	fmt.Printf("%d unloads, %d of them not seen whole\n", stats.Records, stats.Incomplete)
}

// With Below, only the unloads of this program's children and their descendants
// are seen. Breaking out of the loop ends the wait after the first.
func ExampleOptions_below() {
	t, err := tracer.Start(context.Background(), tracer.Options{Below: os.Getpid()})
	if err != nil {
		log.Print(err)
		return
	}
	defer func() {
		if err := t.Close(); err != nil {
			log.Print(err)
		}
	}()
	if err := exec.Command("rmmod", "tun").Start(); err != nil {
		log.Print(err)
		return
	}
	for u := range t.Unloads() {
		fmt.Println(u.Module, u.Result.Reason)
		break
	}
}

// Inspect says what could be seen here, and why not, without tracing.
func ExampleInspect() {
	in, err := tracer.Inspect(tracer.Options{})
	if err != nil {
		log.Fatal(err)
	}
	for _, problem := range in.Problems {
		fmt.Printf("%s: %s\n", problem.What, problem.Remedy)
	}
	for _, hook := range in.Plan.Missing() {
		fmt.Printf("not seen: %s (%s)\n", hook.Sees, hook.Reason)
	}
}
