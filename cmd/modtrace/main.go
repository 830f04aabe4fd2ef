package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/modtrace/modtrace/tracer"
)

func main() {
	t0 := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	var mech []string
	if m := os.Getenv("MECH"); m != "" {
		json.Unmarshal([]byte(m), &mech)
	}
	t, err := tracer.Start(ctx, tracer.Options{Mechanisms: mech})
	if err != nil {
		fmt.Println(err)
		if u, ok := err.(*tracer.Unable); ok {
			fmt.Printf("%+v\n", u.Err)
		}
		os.Exit(3)
	}
	fmt.Println("ready", time.Since(t0))
	for _, h := range t.Plan() {
		fmt.Println(h.Phase, h.Function, h.Mechanism, h.Status, h.Reason)
	}
	c := exec.Command(os.Args[1], os.Args[2:]...)
	c.Stdout = os.Stdout
	c.Stderr = os.Stderr
	fmt.Println(c.Run())
	t0 = time.Now()
	cancel()
	for u := range t.Unloads() {
		b, _ := json.MarshalIndent(u, "", " ")
		fmt.Println(string(b))
	}
	fmt.Println(t.Err(), t.Stats())
	fmt.Println(t.Close())
	fmt.Println("closed", time.Since(t0))
}
