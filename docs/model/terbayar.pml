/*
 * One payment, from `enqueue` to the gateway, over a replicated Redis that fails
 * over, with workers that die: a model for the model checker spin.
 *
 * README.md says what is modelled, what is not, and how to read a counterexample.
 * scripts/model checks all variants. The words in square brackets are the steps that
 * the Go code names where it does them: [create], [claim], [release], [send],
 * [record], [expire], [lookup]. The world around it: [replicate], [attach],
 * [disconnect], [failover], [gateway], [time].
 *
 * A variant is a set of macros:
 *
 *   REPLICAS=1|2  how many nodes there are beside the first primary
 *   WAIT=0|1|2    how many replicas must have a write
 *   WAIT=AUTO     every replica that is connected, and at least one
 *   THEN_RETRY    the policy `then: retry`; without it `then: review`
 *   CREATE        begins with nothing recorded and a client that enqueues;
 *                 without it, with the payment queued on every node
 *   NO_SUBMIT     nobody works on the payment
 *   LIVENESS      the faults end at some time: see `calm`
 *   ONE_WORKER    there is no second worker
 *   WITNESS       see the process of that name
 *
 * Every other macro leaves out one rule of the protocol or gives up one assumption,
 * and stands beside the lines that it changes.
 */

#ifndef REPLICAS
#define REPLICAS 1
#endif
#ifndef WAIT
#define WAIT REPLICAS
#endif
#define AUTO 9

/* Time. A time span is a countdown, and each tick of the clock takes one from all of
 * them. A countdown of n is over at the n-th tick: after more than n-1 and at most n of
 * the time between two ticks. So a request that leaves just before its budget of 1 is
 * over, and may be processed for 2, is dead at tick 2 = BUDGET + LATE - 1.
 * These are the shortest that are safe: a longer LEASE or SETTLE only takes behaviour
 * away. In the program budget + gateway timeout + margin = lease < settle. */
#define BUDGET 1 /* a worker may send for so long after its claim left */
#define LATE 2   /* the gateway processes a request within this time, or never */
#define LEASE BUDGET /* a claim holds at least as long as the right to send */
#ifndef SETTLE
#define SETTLE (BUDGET + LATE - 1) /* "not found" is believed after so long */
#endif

/* ---------------------------------------------------------------------- state -- */

/* A payment's status, as in interface.md; accepted: on_processing or paid. */
mtype = { missing, queued, submitting, verifying, accepted, rejected, needs_review }

/* The payment's record as one Redis node has it. A script changes it in one step.
 *
 * holder: the worker whose present request id is in the record. A request id is
 * taken anew for every run of a task, so one that its worker has forgotten is
 * nobody's, and no save under it can come any more.
 *
 * Times are the clock's of the node that acts as primary. Whoever becomes primary
 * may have a clock that is far ahead: it finds every lease over, and times nothing
 * by what another primary began. So the last four are kept at zero on a replica. */
typedef Record {
	mtype status;
	byte holder;
	byte lease;  /* what is left of the claim */
	bool here;   /* settle and the count of "not found" began on this primary */
	byte settle; /* what is left until "not found" may be believed */
	bool once    /* "not found" was answered once; the second time may decide */
}
Record rec[REPLICAS + 1];

/* Node 0 is the primary that was elected last: with a failover the two nodes change
 * places. Another node follows one that acts as primary, or itself: it was primary
 * before, is cut off, and goes on as one with clients of its own; or nobody. */
byte follows[REPLICAS + 1];
#define NOWHERE 7
#define PRIMARY(n) (follows[n] == n)
#define OTHER(n) (3 - (n)) /* of nodes 1 and 2 */

/* Who writes and waits: workers 0 and 1, and the client. */
#define CLIENT 2
#define NOBODY 3
byte on[3] = NOWHERE; /* the node that its connection is to */
byte has[3];          /* bit n: node n has what it wrote there */

byte budget[2]; /* what is left of a worker's right to send */
bool busy;      /* worker 0 has work. Worker 1 begins only then: they are alike */

/* The one request of this payment that the gateway may process, or has processed.
 * That there are never two is what the model is about. */
mtype = { none, flying, processed }
mtype request = none;
byte flight;          /* what is left of the time in which it may be processed */
byte sender = NOBODY; /* who waits for its answer */
mtype = { waiting, yes, refused, throttled }
mtype answer[2] = none;

bool answered; /* the client was told `enqueued`, or `duplicate` */
bool told;     /* an order system may know that the payment is rejected */
bool believed; /* lookups have said "absent" of the request, by the rule: see UNLESS_BELIEVED */

/* The lookup under way: the node whose record was read. A save on another node, or
 * after any other change of the record, is refused: that ends it, too. */
byte asked = NOWHERE;
bool decides;         /* with one more "not found" it is believed: by what was read */
bool found;           /* what the gateway answered */

#ifdef WITNESS
byte sends;   /* requests sent; 2: two or more */
bool died;    /* a worker died after it had sent */
bool elected; /* there was a failover after something was sent */
#endif

/* With LIVENESS every fault ends at a moment that nobody knows: no crash, failover
 * or time-out after it. Without, faults never end. */
bool calm;
#ifdef LIVENESS
#define FAULTS (!calm)
#else
#define FAULTS true
#endif

/* ---------------------------------------------------------------------- Redis -- */

#define OF(p, w, s) (rec[p].status == s && rec[p].holder == w)

inline lookup_ends() { asked = NOWHERE; decides = false; found = false }

#ifdef SAVED_ELSEWHERE /* a lookup's save is refused only if request id or status differ */
byte asked_holder = NOBODY;
inline changed(n) { skip }
#define AS_READ(p) (asked_holder != NOBODY && OF(p, asked_holder, verifying))
#else
inline changed(n) { /* what was read of node n's record is out of date */
	if :: asked == n -> lookup_ends() :: else fi
}
#define AS_READ(p) true
#endif

inline zero(n) { rec[n].lease = 0; rec[n].here = false; rec[n].settle = 0; rec[n].once = false }

inline write(n, to, by) {
	rec[n].status = to; rec[n].holder = by; zero(n);
	changed(n)
}

inline doubt(n, by) { /* the outcome is unknown; settle counts from now */
	write(n, verifying, by);
	rec[n].here = true; rec[n].settle = SETTLE
}

inline hang_up(w) { on[w] = NOWHERE; has[w] = 0 }

inline close(n) { /* a node that is no primary any more drops its clients */
	if :: on[0] == n -> hang_up(0) :: else fi;
	if :: on[1] == n -> hang_up(1) :: else fi;
	if :: on[2] == n -> hang_up(2) :: else fi
}

/* WAIT, on the connection that wrote: the replicas that are connected to that node
 * and have the write. */
#define CONNECTED(p, n) (n != p && follows[n] == p)
#define HAS(w, n) (CONNECTED(on[w], n) && ((has[w] >> n) & 1))
#if REPLICAS == 2
#define COUNT_HAVE(w) (HAS(w, 1) + HAS(w, 2))
#define COUNT_CONNECTED(p) (CONNECTED(p, 1) + CONNECTED(p, 2))
#else
#define COUNT_HAVE(w) HAS(w, 1)
#define COUNT_CONNECTED(p) CONNECTED(p, 1)
#endif

#if WAIT == AUTO
byte least[3]; /* WAIT's argument: the replicas that were connected when it left */
#ifdef AUTO_BEFORE /* their number is that of before the write */
#define ENOUGH(w) (COUNT_HAVE(w) >= least[w])
#else              /* it is looked at again with WAIT's answer */
#define ENOUGH(w) (COUNT_HAVE(w) >= least[w] && COUNT_HAVE(w) >= COUNT_CONNECTED(on[w]))
#endif
inline connect(w, p) {
	on[w] = p; has[w] = 0;
	least[w] = (COUNT_CONNECTED(p) > 1 -> COUNT_CONNECTED(p) : 1)
}
#else
#ifdef WAIT_ELSEWHERE /* WAIT goes over any connection, to any primary */
#define ENOUGH(w) (COUNT_CONNECTED(0) >= WAIT)
#else
#define ENOUGH(w) (COUNT_HAVE(w) >= WAIT)
#endif
inline connect(w, p) { on[w] = p; has[w] = 0 }
#endif

#define ACKNOWLEDGED(w) (on[w] != NOWHERE && ENOUGH(w))
#define UNACKNOWLEDGED(w) (FAULTS || on[w] == NOWHERE) /* time-out, or connection lost */

#define LACKS(w, n) (on[w] == follows[n] && !((has[w] >> n) & 1))
#define BEHIND(n) (rec[n].status != rec[follows[n]].status || rec[n].holder != rec[follows[n]].holder || \
	LACKS(0, n) || LACKS(1, n) || LACKS(2, n))

inline copied(w, n) { if :: on[w] == follows[n] -> has[w] = has[w] | (1 << n) :: else fi }

/* A replica has the whole record of its primary as it was at some time: everything
 * up to some point of the log, and nothing after it. */
inline copy(n) {
	rec[n].status = rec[follows[n]].status; rec[n].holder = rec[follows[n]].holder;
	copied(0, n); copied(1, n); copied(2, n)
}

inline stay_behind(w, n) { /* a client of the old primary, when that changes its name */
	if :: on[w] == 0 -> on[w] = n; has[w] = has[w] & ~(1 << n) :: else fi
}

/* Which replica may be elected: any, whatever it lacks. With AUTO one that is connected:
 * of the others nobody knows any more what they lack. */
#if WAIT == AUTO && !defined(DISCONNECTED_ELECTED)
#define ELIGIBLE(n) (follows[n] == 0)
#else
#define ELIGIBLE(n) (!PRIMARY(n))
#endif
#if REPLICAS == 2
#define ALONE (!PRIMARY(1) && !PRIMARY(2)) /* the last old primary has been told */
#else
#define ALONE (!PRIMARY(1))
#endif

/* A node other than the elected primary. */
proctype Node(byte n) {
	mtype status;
	byte holder;
end:	do
	/* [replicate] It catches up with the primary that it follows. */
	:: d_step { follows[n] != NOWHERE && !PRIMARY(n) && PRIMARY(follows[n]) && BEHIND(n) ->
		printf("node %d: [replicate] %e from node %d\n", n, rec[follows[n]].status, follows[n]);
		copy(n)
	}
	/* [attach] It is told who was elected, and takes over its data. What an old primary
	 * wrote in the meantime is gone. */
	:: d_step { follows[n] != 0 ->
		printf("node %d: [attach] to the elected primary\n", n);
		close(n); changed(n); zero(n);
#if REPLICAS == 2
		if :: follows[OTHER(n)] == n -> follows[OTHER(n)] = NOWHERE :: else fi;
#endif
		follows[n] = 0;
		copy(n)
	}
#if WAIT == AUTO
	/* [disconnect] It is not counted any more. */
	:: d_step { FAULTS && follows[n] == 0 ->
		printf("node %d: [disconnect]\n", n);
		follows[n] = NOWHERE
	}
#endif
	/* [failover] It is elected, with what it has. The old primary takes its number, and
	 * goes on with its clients, and with a replica that has not been told yet. */
	:: d_step { FAULTS && ELIGIBLE(n) && ALONE ->
		printf("node %d: [failover] is elected: from now on node 0, the old primary is node %d\n", n, n);
		status = rec[n].status; holder = rec[n].holder;
		rec[n].status = rec[0].status; rec[n].holder = rec[0].holder;
		rec[0].status = status; rec[0].holder = holder;
#ifdef OLD_PRIMARY_STOPS /* it is dead, and not only cut off */
		close(0); changed(0);
		zero(n); follows[n] = NOWHERE;
#else
		rec[n].lease = rec[0].lease; rec[n].here = rec[0].here;
		rec[n].settle = rec[0].settle; rec[n].once = rec[0].once;
		stay_behind(0, n); stay_behind(1, n); stay_behind(2, n);
		if :: asked == 0 -> asked = n :: else fi;
		follows[n] = n;
#endif
#if REPLICAS == 2
		if :: follows[OTHER(n)] == 0 -> follows[OTHER(n)] = follows[n] :: else fi;
#endif
		zero(0);
#ifdef SETTLE_KEPT /* settle and count go on after a failover; the clock is ahead */
		if
		:: status == verifying -> rec[0].here = true; rec[0].once = true
		:: else
		fi;
#endif
#ifdef WITNESS
		elected = (sends > 0);
#endif
		status = 0; holder = 0;
		assert(!answered || rec[0].status != missing) /* nothing enqueued is lost */
	}
	od
}

/* --------------------------------------------------------------------- client -- */

inline any_primary(p) {
	if
	:: p = 0
	:: PRIMARY(1) -> p = 1
#if REPLICAS == 2
	:: PRIMARY(2) -> p = 2
#endif
	fi
}

/* `enqueue create`, or the HTTP API. */
proctype Client() {
	byte p;
	bool duplicate;
create:
	/* [create] Ledger.Create: the script, and WAIT on the same connection. */
	atomic {
		any_primary(p);
		printf("client: [create] on node %d, %e there\n", p, rec[p].status);
		if
		:: rec[p].status == missing -> write(p, queued, NOBODY)
		:: else -> duplicate = true
		fi;
		connect(CLIENT, p); p = 0
	}
end:	if
#ifdef DUPLICATE_AT_ONCE /* `duplicate` is answered without waiting */
	:: d_step { ACKNOWLEDGED(CLIENT) || duplicate ->
#else
	:: d_step { ACKNOWLEDGED(CLIENT) ->
#endif
		printf("client: enqueued, or duplicate\n");
		hang_up(CLIENT); duplicate = false;
		answered = true;
		assert(rec[0].status != missing) /* nothing enqueued is lost */
	}
	/* `failed`: the same content is submitted again under the same id. */
	:: d_step { UNACKNOWLEDGED(CLIENT) -> hang_up(CLIENT); duplicate = false } -> goto create
	fi
}

/* -------------------------------------------------------------------- workers -- */

#ifdef ID_REUSED
byte released = NOBODY; /* a release that is still on its way to Redis */
#endif

#ifdef NO_FENCE /* the holder's request id is not compared */
#define HELD(p, w) (rec[p].status == submitting)
#else
#define HELD(p, w) OF(p, w, submitting)
#endif
#define CLAIMABLE(p) (PRIMARY(p) && rec[p].status == queued)
#if REPLICAS == 2
#define ANY(what) (what(0) || what(1) || what(2))
#else
#define ANY(what) (what(0) || what(1))
#endif

inline nobodys(n, w) { if :: rec[n].holder == w -> rec[n].holder = NOBODY :: else fi }

inline forget(w) { /* the task's run ends, or the worker dies: the same for everybody else */
	nobodys(0, w); nobodys(1, w);
#if REPLICAS == 2
	nobodys(2, w);
#endif
	hang_up(w);
	budget[w] = 0; answer[w] = none;
	if :: sender == w -> sender = NOBODY :: else fi;
#ifdef SAVED_ELSEWHERE
	if :: asked_holder == w -> asked_holder = NOBODY :: else fi;
#endif
#ifdef ID_REUSED
	if :: released == w -> released = NOBODY :: else fi;
#endif
	busy = (w == 0 -> false : busy)
}

/* [claim] Ledger.Claim. The budget counts from before it left. A claim under the request id
 * that the record has already renews the lease. */
inline claim(w, p) {
	printf("worker %d: [claim] on node %d\n", w, p);
	budget[w] = BUDGET;
	write(p, submitting, w); rec[p].lease = LEASE;
#ifdef SETTLE_FROM_LEASE
	rec[p].here = true;
#endif
	connect(w, p);
	busy = (w == 0 -> true : busy)
}

/* Nothing has left under this claim, and nothing will. On whoever is primary now: */
inline unsent(w) {
	hang_up(w);
	any_primary(p);
	if
	/* the claim again, under the same request id ... */
	:: rec[p].status == queued || OF(p, w, submitting) -> claim(w, p); p = 0; goto claimed
	/* ... or [release] Ledger.Release: back into the queue. The request id is never used again. */
#ifdef ID_REUSED /* the release is slow, and the worker claims again before it is there */
	:: released == NOBODY -> released = w; p = 0; goto claimed
#else
	:: HELD(p, w) ->
		printf("worker %d: [release] on node %d\n", w, p);
		write(p, queued, NOBODY); p = 0; forget(w); goto idle
#endif
	/* By now the record is somebody else's, or being looked up. */
	:: rec[p].status != queued && !OF(p, w, submitting) -> p = 0; forget(w); goto idle
	fi
}

/* [record] Refused for good: under the same request id, on whoever is primary. */
inline refusal(w) {
	any_primary(p);
	printf("worker %d: [record] rejected on node %d, %e there\n", w, p, rec[p].status);
	if
	:: HELD(p, w) || OF(p, w, verifying) || OF(p, w, rejected) ->
		write(p, rejected, w); connect(w, p); p = 0
#ifdef TOLD_AT_ONCE /* the event is read before the save is acknowledged */
		; told = true
#endif
	:: else -> p = 0; forget(w); goto idle
	fi
}

/* Submitter.Submit: two workers have got the same task. */
proctype Worker(byte w) {
	byte p;
end:
idle:	atomic { (w == 0 || busy) && ANY(CLAIMABLE) ->
		if
		:: CLAIMABLE(0) -> p = 0
		:: CLAIMABLE(1) -> p = 1
#if REPLICAS == 2
		:: CLAIMABLE(2) -> p = 2
#endif
		fi;
		claim(w, p); p = 0
	}

claimed:
	if
#ifdef SEND_AT_ONCE /* without waiting for the acknowledgement */
	:: d_step { hang_up(w) }
#endif
	:: d_step { ACKNOWLEDGED(w) -> printf("worker %d: claim acknowledged\n", w); hang_up(w) }
	:: atomic { UNACKNOWLEDGED(w) -> unsent(w) }
	:: d_step { FAULTS -> printf("worker %d: dies\n", w); forget(w) } -> goto idle
	fi;

may_send:
	if
	/* [send] Submitter.send: the budget is compared just before the first byte leaves. */
	:: d_step {
#ifdef NO_BUDGET_CHECK
		true
#else
		budget[w] > 0
#endif
		->
		printf("worker %d: [send]\n", w);
		assert(request == none || believed); /* never two that may be processed */
		assert(!told);                       /* nothing after `rejected` */
		request = flying; flight = LATE; sender = w; answer[w] = waiting;
		believed = false;
#ifdef WITNESS
		sends = (sends < 2 -> sends + 1 : 2);
#endif
		budget[w] = 0
	}
	:: atomic { budget[w] == 0 -> unsent(w) }
	:: d_step { FAULTS -> printf("worker %d: dies\n", w); forget(w) } -> goto idle
	fi;

sent:
	/* [record] Ledger.Save, by the holder of the fence: what the answer says. */
	if
	/* Accepted. Adopted, too, when the claim was over before the answer came. */
	:: atomic { answer[w] == yes ->
		any_primary(p);
		printf("worker %d: [record] accepted on node %d, %e there\n", w, p, rec[p].status);
		if
		:: HELD(p, w) || OF(p, w, verifying) -> write(p, accepted, NOBODY)
		:: else
		fi;
		p = 0; forget(w); goto idle
	}
	/* Certainly not processed: back into the queue. */
	:: atomic { answer[w] == throttled ->
		any_primary(p);
		printf("worker %d: [record] queued again on node %d, %e there\n", w, p, rec[p].status);
		if
		:: HELD(p, w) -> write(p, queued, NOBODY)
		:: else
		fi;
		p = 0; forget(w); goto idle
	}
	/* No answer in time. */
	:: atomic { answer[w] == waiting && (FAULTS || sender != w) ->
		any_primary(p);
		printf("worker %d: [record] unknown on node %d, %e there\n", w, p, rec[p].status);
		if
#ifdef RELEASE_AFTER_SEND /* the claim is released although the request may have left */
		:: HELD(p, w) -> write(p, queued, NOBODY)
#else
		:: HELD(p, w) -> doubt(p, w)
#endif
		:: else
		fi;
		p = 0; forget(w); goto idle
	}
	/* Refused for good. No lookup finds that again: it waits. */
	:: atomic { answer[w] == refused -> answer[w] = none; refusal(w) }
	:: d_step { FAULTS ->
		printf("worker %d: dies\n", w);
#ifdef WITNESS
		died = true;
#endif
		forget(w)
	} -> goto idle
	fi;

refusing: /* ... until it is acknowledged */
	if
	:: d_step { ACKNOWLEDGED(w) ->
		forget(w);
#if defined(TOLD_WHEN_SAFE) || defined(TOLD_AT_ONCE)
		told = true
#endif
	} -> goto idle
	:: atomic { UNACKNOWLEDGED(w) -> hang_up(w); refusal(w); goto refusing }
	:: d_step { FAULTS -> printf("worker %d: dies\n", w); forget(w) } -> goto idle
	fi
}

#ifdef ID_REUSED
proctype SlowRelease() {
end:	do
	:: d_step { released != NOBODY ->
		printf("worker %d: [release] arrives at node 0\n", released);
		if
		:: HELD(0, released) -> write(0, queued, NOBODY)
		:: else
		fi;
		released = NOBODY
	}
	od
}
#endif

/* --------------------------------------------------------------------- poller -- */

#ifdef NO_EXPIRY /* nobody ends the claim of a worker that died */
#define OVER(p) false
#else
#define OVER(p) (rec[p].status == submitting && rec[p].lease == 0)
#endif
#define MOVED(p) (rec[p].status == verifying && !rec[p].here)
#if defined(SETTLE_AT_SAVE) || defined(SAVED_ELSEWHERE)
#define DUE(p) (rec[p].status == verifying && rec[p].here)
#else /* the lookups that change anything */
#define DUE(p) (rec[p].status == verifying && rec[p].here && \
	(request == processed || !rec[p].once || rec[p].settle == 0))
#endif
#define TODO(p) (PRIMARY(p) && (OVER(p) || MOVED(p) || asked == NOWHERE && DUE(p)))

/* The Poller of any worker. */
proctype Poller() {
	byte p;
end:	do
	:: atomic { ANY(TODO) ->
		if
		:: TODO(0) -> p = 0
		:: TODO(1) -> p = 1
#if REPLICAS == 2
		:: TODO(2) -> p = 2
#endif
		fi;
		if
		/* [expire] Submitter.Abandon: the claim is over, by this primary's clock. Whether
		 * its request left, nobody knows. */
		:: OVER(p) ->
			printf("poller: [expire] on node %d\n", p);
#ifdef SETTLE_FROM_LEASE /* settle counts from the lease's end, by the clock that set it */
			if
			:: !rec[p].here -> doubt(p, rec[p].holder); rec[p].settle = 0
			:: else -> doubt(p, rec[p].holder)
			fi
#else
			doubt(p, rec[p].holder)
#endif
		/* [lookup] The primary has changed since: settle and the count begin anew. */
		:: MOVED(p) ->
			printf("poller: [lookup] begins anew on node %d\n", p);
			doubt(p, rec[p].holder)
		/* [lookup] The question leaves for the gateway. What the record says so far was
		 * read before that, with the time of the primary. */
		:: asked == NOWHERE && DUE(p) ->
#ifdef SAVED_ELSEWHERE
			asked_holder = rec[p].holder;
#endif
			asked = p; decides = (rec[p].once && rec[p].settle == 0); found = (request == processed);
			printf("poller: [lookup] for node %d; found: %d\n", p, found)
		fi;
		p = 0
	}
	/* [lookup] The answer is saved, on the node where the record was read; see `asked`. */
	:: atomic { asked != NOWHERE ->
#ifdef SAVED_ELSEWHERE
		any_primary(p);
#else
		p = asked;
#endif
#ifdef SETTLE_AT_SAVE /* settle is compared when the answer is saved */
		decides = (rec[p].once && rec[p].settle == 0);
#endif
		if
		:: AS_READ(p) && found ->
			printf("poller: [lookup] found, on node %d\n", p);
			write(p, accepted, NOBODY)
		:: AS_READ(p) && !found && decides ->
			printf("poller: [lookup] absent, on node %d\n", p);
#ifdef THEN_RETRY
#ifdef UNLESS_BELIEVED /* a second request is right, whatever becomes of the first */
			believed = true;
#endif
			write(p, queued, NOBODY)
#else
			write(p, needs_review, NOBODY)
#endif
		:: AS_READ(p) && !found && !decides ->
			printf("poller: [lookup] not found, on node %d\n", p);
			rec[p].once = true
		:: !AS_READ(p)
		fi;
		lookup_ends();
		p = 0
	}
	od
}

/* -------------------------------------------------------------------- gateway -- */

inline tell(what) { /* an answer is of use only to a worker that still waits for it */
	if
	:: sender != NOBODY -> answer[sender] = what; sender = NOBODY
	:: else
	fi;
	flight = 0
}

proctype Gateway() {
end:	do
	:: d_step { request == flying ->
		printf("gateway: [gateway] processes the request\n");
		request = processed; tell(yes)
	}
	:: d_step { request == flying && FAULTS ->
		printf("gateway: [gateway] refuses the request\n");
		request = none; tell(refused)
	}
	:: d_step { request == flying && FAULTS ->
		printf("gateway: [gateway] does not process the request now\n");
		request = none; tell(throttled)
	}
	od
}

/* ----------------------------------------------------------------------- time -- */

#define RUNS(n) (rec[n].lease > 0 || rec[n].settle > 0)
#define LESS(x) x = (x > 0 -> x - 1 : 0)
/* Once it is calm, what a worker and the gateway have to do takes less time than
 * they have for it. */
#define IN_TIME (FAULTS || (budget[0] == 0 && budget[1] == 0 && flight == 0))

proctype Time() {
end:	do
	:: d_step { IN_TIME && (budget[0] > 0 || budget[1] > 0 || flight > 0 || ANY(RUNS)) ->
		printf("time: [time] passes\n");
		LESS(budget[0]); LESS(budget[1]);
		LESS(rec[0].lease); LESS(rec[0].settle);
		LESS(rec[1].lease); LESS(rec[1].settle);
#if REPLICAS == 2
		LESS(rec[2].lease); LESS(rec[2].settle);
#endif
		if
		:: flight > 0 ->
#ifndef GATEWAY_ANY_TIME /* the gateway may process a request however late */
			/* It was lost on its way, and will never be processed. */
			flight--;
			if :: flight == 0 -> request = none; sender = NOBODY :: else fi
#endif
		:: else
		fi
	}
	od
}

#ifdef LIVENESS
proctype Calm() {
	calm = true;
	do /* the world never stops: every end of a run is a cycle */
	:: calm -> skip
	od
}

#define FINAL(s) (s == accepted || s == rejected || s == needs_review)
#ifdef CREATE
ltl ends { <> [] (answered && rec[0].status != missing) }
#else
ltl ends { <> [] FINAL(rec[0].status) }
#endif
#endif

#ifdef WITNESS
/* What has to be possible, or else the model proves nothing. Spin names the lines
 * that it never reached, and scripts/model fails if one of these is among them. */
bool seen; /* a step of its own behind the condition, which can be reached or not */
proctype Witness() {
	do
	:: atomic { rec[0].status == accepted && sends == 1 && !died && !elected -> seen = true; seen = false } /* sent, processed, recorded */
	:: atomic { rec[0].status == rejected -> seen = true; seen = false } /* refused for good */
	:: atomic { rec[0].status == submitting && died && request == processed -> seen = true; seen = false } /* processed, and its worker died */
	:: atomic { rec[0].status == verifying && died && request == processed -> seen = true; seen = false } /* then its claim expired */
	:: atomic { rec[0].status == accepted && died && sends == 1 -> seen = true; seen = false } /* then a lookup found it */
	:: atomic { rec[0].status == submitting && sends == 1 && rec[1].status == accepted && PRIMARY(1) -> seen = true; seen = false } /* a failover lost what was recorded */
	:: atomic { rec[0].status == accepted && elected && sends == 1 && rec[1].status == accepted && !PRIMARY(1) -> seen = true; seen = false } /* and it was found again */
	:: atomic { rec[0].status == queued && rec[1].status == submitting && PRIMARY(1) && budget[0] > 0 -> seen = true; seen = false } /* a failover lost a claim */
	:: atomic { rec[0].status == verifying && budget[0] > 0 && sends == 0 -> seen = true; seen = false } /* a claim expired early: the clock is ahead */
	:: atomic { rec[0].status == queued && sends == 1 && died && request == none -> seen = true; seen = false } /* absent: back into the queue */
	:: atomic { rec[0].status == accepted && sends == 2 && died -> seen = true; seen = false } /* sent again, processed, recorded */
	od
}
#endif

init {
	atomic {
		byte n;
		for (n : 0 .. REPLICAS) {
#ifdef CREATE
			rec[n].status = missing;
#else
			rec[n].status = queued;
#endif
			rec[n].holder = NOBODY
		}
		n = 0;
		run Node(1);
#if REPLICAS == 2
		run Node(2);
#endif
#ifdef CREATE
		run Client();
#endif
#ifndef NO_SUBMIT
		run Worker(0);
#ifndef ONE_WORKER
		run Worker(1);
#endif
		run Poller(); run Gateway();
#endif
		run Time();
#ifdef WITNESS
		run Witness();
#endif
#ifdef LIVENESS
		run Calm();
#endif
#ifdef ID_REUSED
		run SlowRelease();
#endif
	}
}
