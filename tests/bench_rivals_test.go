package tests

import (
	"net/http"
	"sync"

	"go.etcd.io/bbolt"
)

// The rivals: smaller servers with which the benchmarks compare call-me. Each is a process of
// its own that runs the test binary.

// floorHandler replies to the calls of 2019 from a map.
func floorHandler() http.HandlerFunc {
	var mu sync.Mutex
	held := map[string]bool{}
	return func(w http.ResponseWriter, r *http.Request) {
		name, status := r.URL.Query().Get("environment"), http.StatusOK
		mu.Lock()
		switch {
		case r.Method == http.MethodDelete:
			delete(held, name)
			status = http.StatusNoContent
		case held[name]:
			status = http.StatusForbidden
		case r.Method == http.MethodPost:
			held[name], status = true, http.StatusCreated
		}
		mu.Unlock()
		w.WriteHeader(status)
	}
}

// rivalCommand is the argument with which the test binary runs a rival.
const rivalCommand = "rival"

// rival serves the floor or the bare server, and never returns. Its arguments are the name of
// the server, the address, and the path of a file for bbolt.
func rival(args []string) {
	h := http.Handler(floorHandler())
	if args[0] == "bare" {
		var err error
		if h, err = bareHandler(args[2]); err != nil {
			panic(err)
		}
	}
	panic(http.ListenAndServe(args[1], h))
}

// bareHandler replies to the calls of 2019 as the floor does, but saves them too: one
// goroutine commits to bbolt the calls that have arrived, as one batch. It shows what net/http
// and the disk allow together, without the rules, queue, history, checksums, keys, log and
// metrics of a lock server.
func bareHandler(path string) (http.Handler, error) {
	type question struct {
		name   string
		method string
		status chan int
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("leases"))
		return err
	})
	questions, held := make(chan question, 1024), map[string]bool{}
	answer := func(q question, leases *bbolt.Bucket) int {
		switch {
		case q.method == http.MethodDelete:
			delete(held, q.name)
			leases.Delete([]byte(q.name))
			return http.StatusNoContent
		case held[q.name]:
			return http.StatusForbidden
		}
		held[q.name] = true
		leases.Put([]byte(q.name), make([]byte, 64))
		return http.StatusCreated
	}
	go func() {
		for first := range questions {
			group := []question{first}
			for range len(questions) {
				group = append(group, <-questions)
			}
			status := make([]int, len(group))
			err := db.Update(func(tx *bbolt.Tx) error {
				for i, q := range group {
					status[i] = answer(q, tx.Bucket([]byte("leases")))
				}
				return nil
			})
			if err != nil {
				panic(err)
			}
			for i, q := range group {
				q.status <- status[i]
			}
		}
	}()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := question{r.URL.Query().Get("environment"), r.Method, make(chan int, 1)}
		questions <- q
		w.WriteHeader(<-q.status)
	}), err
}
