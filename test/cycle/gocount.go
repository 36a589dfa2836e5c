// SPDX-License-Identifier: GPL-2.0-only

// Goroutines that count and make garbage, and one that writes what it counted
// to a file, one number a line. Plain system calls instead of os.File and
// time.Sleep: with a second argument and GOGC=off the runtime then opens no
// descriptors of its own.
package main

import (
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

type node struct {
	next *node
	sum  int
	pad  [100]byte
}

var counts [8]int64

func sum(list *node) int {
	total := 0
	for n := list; n != nil; n = n.next {
		total += n.sum
	}
	return total
}

// Builds lists and drops them: the sum of one must be what went in.
func work(me int) {
	for round := 0; ; round++ {
		var list *node
		want := 0
		for i := 0; i < 50; i++ {
			list = &node{next: list, sum: i * round}
			want += i * round
		}
		if sum(list) != want {
			panic("memory is not what it was")
		}
		atomic.AddInt64(&counts[me], 1)
		nap(1000000)
	}
}

func nap(ns int64) {
	left := syscall.NsecToTimespec(ns)
	// the runtime interrupts its own threads to share them
	for syscall.Nanosleep(&left, &left) == syscall.EINTR {
	}
}

func main() {
	fd, err := syscall.Open(os.Args[1], syscall.O_WRONLY|syscall.O_CREAT|syscall.O_APPEND, 0644)
	if err != nil {
		panic(err)
	}
	for i := range counts {
		go work(i)
	}
	// the collector's helpers use timers, and those an epoll descriptor and a pipe:
	// have them from the start
	collect := len(os.Args) < 3
	if collect {
		time.AfterFunc(time.Hour, func() {})
	}
	for n := 1; ; n++ {
		line := []byte(strconv.Itoa(n) + "\n")
		if written, err := syscall.Write(fd, line); err != nil || written != len(line) {
			panic(err)
		}
		if n%20 == 0 && collect {
			runtime.GC()
		}
		nap(3000000)
	}
}
