package tasks

import (
	"testing"
	"testing/synctest"
	"time"
)

// waiters starts servers that found the queue empty. For each that may ask, the channel
// receives whether it has its turn.
func waiters(p *pacer, n int) <-chan bool {
	asks := make(chan bool, n)
	for range n {
		go func() {
			if ask, hasTurn := p.wait(); ask {
				asks <- hasTurn
			}
		}()
	}
	synctest.Wait()
	return asks
}

func TestPacer(t *testing.T) {
	t.Run("one asks per interval", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPacer(time.Second)
			asks := waiters(p, 3)
			for range 3 {
				start := time.Now()
				if hasTurn := <-asks; !hasTurn || time.Since(start) != time.Second {
					t.Errorf("asks after %s, its turn: %t", time.Since(start), hasTurn)
				}
				p.endTurn(false)
			}
		})
	})
	t.Run("nobody asks during a turn", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPacer(time.Second)
			asks := waiters(p, 3)
			<-asks
			time.Sleep(time.Hour) // Redis does not answer
			synctest.Wait()
			if len(asks) != 0 {
				t.Errorf("%d ask", len(asks))
			}
			p.close()
		})
	})
	t.Run("a task wakes all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPacer(time.Second)
			asks := waiters(p, 5)
			<-asks
			p.endTurn(true)
			synctest.Wait()
			if len(asks) != 4 {
				t.Errorf("%d of 4 ask", len(asks))
			}
			for len(asks) > 0 {
				if <-asks {
					t.Error("one has the turn")
				}
			}
			if again := waiters(p, 2); len(again) != 0 {
				t.Error("a server that found the queue empty again does not wait")
			}
			p.close()
		})
	})
	t.Run("close ends all waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { // fails if a goroutine does not end
			p := newPacer(time.Hour)
			start := time.Now()
			asks := waiters(p, 3)
			p.close()
			p.close()
			synctest.Wait()
			if ask, _ := p.wait(); ask || len(asks) != 0 || time.Since(start) != 0 {
				t.Errorf("%d ask after %s", len(asks), time.Since(start))
			}
		})
	})
}
