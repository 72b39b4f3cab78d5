/*
 * One payment, from `enqueue` to the gateway, with a replicated Redis that fails over and
 * workers that crash: a model for the model checker spin.
 *
 * README.md describes what is modelled, what is not, and how to read a counterexample.
 * scripts/model checks all variants. Words in square brackets are steps. The Go code names
 * the steps that it takes: [create], [claim], [release], [send], [record], [expire],
 * [lookup]. Steps of Redis, the gateway and time: [replicate], [attach], [disconnect],
 * [failover], [gateway], [time].
 *
 * A variant is a set of macros:
 *
 *   REPLICAS=1|2  number of nodes besides the first primary
 *   WAIT=0|1|2    number of replicas that must have a write
 *   WAIT=AUTO     every connected replica, at least one
 *   THEN_RETRY    the policy `then: retry`; without it `then: review`
 *   CREATE        starts without a record, and with a client that enqueues the payment;
 *                 without it, the payment is queued on every node at the start
 *   CANCEL        with an order system that cancels the payment, once or repeatedly
 *   NO_SUBMIT     no workers, no poller, no gateway
 *   LIVENESS      the faults end at some time: see `faults_over`
 *   ONE_WORKER    no second worker
 *   REACHABLE     see the process Reachable
 *
 * Every other macro removes one rule of the protocol or drops one assumption. A comment
 * beside the lines that it changes explains it.
 */

#ifndef REPLICAS
#define REPLICAS 1
#endif
#ifndef WAIT
#define WAIT REPLICAS
#endif
#define AUTO 9

/* Time. A time span is a countdown; each tick of the clock subtracts one from all of them.
 * A countdown of n ends at the n-th tick, so it lasts more than n-1 and at most n ticks. A
 * request that is sent just before its budget of 1 ends, and that the gateway may process
 * within 2, can no longer be processed at tick 2 = BUDGET + LATE - 1.
 * These are the shortest safe values: a longer LEASE or SETTLE only removes behaviour. In
 * the program budget + gateway timeout + margin = lease < settle. */
#define BUDGET 1 /* the time in which a worker may send, counted from before its claim is sent */
#define LATE 2   /* the gateway processes a request within this time, or never */
#define LEASE BUDGET /* a claim lasts at least as long as the budget */
#ifndef SETTLE
#define SETTLE (BUDGET + LATE - 1) /* "not found" is conclusive only after this time */
#endif

/* ---------------------------------------------------------------------- state -- */

/* A payment's status, as in docs/interface.md; accepted stands for on_processing and paid. */
mtype = { missing, queued, submitting, verifying, accepted, rejected, needs_review, cancelled }

/* The payment's record on one Redis node. A script changes it in one step.
 *
 * holder: the worker whose current request id is in the record. Every run of a task draws
 * a new request id. After the run, no save with its request id can arrive any more: the
 * holder is then NO_ONE.
 *
 * Times are measured by the clock of the primary. After a failover that clock may be far
 * ahead: the new primary finds every lease expired, and does not use times that another
 * primary wrote. So the last four fields are zero on a replica. */
typedef Record {
	mtype status;
	byte holder;
#ifdef CANCEL
	bool unknown;        /* the outcome of a request was unknown at some time */
#endif
	byte lease;          /* time left of the claim */
	bool settle_here;    /* settle and the count of "not found" began on this primary */
	byte settle;         /* time left until "not found" can be conclusive */
	bool not_found_once  /* one lookup found nothing; a second one can be conclusive */
}
Record rec[REPLICAS + 1];

/* Node 0 is the primary that was elected last: at a failover the two nodes swap their
 * numbers. Each other node follows a primary; or itself: it is an old primary that is
 * partitioned from the others and still has clients; or NO_NODE. */
byte follows[REPLICAS + 1];
#define NO_NODE 7
#define PRIMARY(n) (follows[n] == n)
#define OTHER(n) (3 - (n)) /* of nodes 1 and 2 */

/* The processes that write to Redis and wait: workers 0 and 1, and the client. */
#define CLIENT 2
#define NO_ONE 3
byte conn[3] = NO_NODE; /* the node that its connection is to */
byte has[3];            /* bit n: node n has its last write on that connection */

byte budget[2];    /* time left in which a worker may send */
bool worker0_busy; /* worker 0 has a task. Worker 1 starts only then: the two are symmetric */

/* The one request for this payment that the gateway may process, or has processed. The
 * model checks that there are never two. */
mtype = { none, in_flight, processed }
mtype request = none;
byte time_left;       /* time left in which the gateway may process it */
byte sender = NO_ONE; /* the worker that waits for its answer */
mtype = { waiting, yes, refused, throttled }
mtype answer[2] = none;

bool enqueued;       /* the client received `enqueued` or `duplicate` */
bool reported;       /* an order system may have received `rejected` */
#ifdef CANCEL
bool withdrawn;      /* an order system received `cancelled` */
#endif
bool resend_allowed; /* lookups have found, conclusively, that the request is absent; see RESEND_AFTER_ABSENT */

/* The lookup in progress: the node whose record was read. A save on another node, or
 * after any other change of the record, is refused: that ends the lookup as well. */
byte lookup_node = NO_NODE;
bool conclusive; /* by the record that was read, one more "not found" is conclusive */
bool found;      /* the gateway's answer */

#ifdef REACHABLE
byte sends;       /* requests sent; 2: two or more */
bool crashed;        /* a worker crashed after it had sent */
bool failed_over; /* there was a failover after something was sent */
#endif

/* With LIVENESS the faults end at an arbitrary time: after it there is no crash, failover
 * or timeout. Without it, faults never end. */
bool faults_over;
#ifdef LIVENESS
#define FAULTS (!faults_over)
#else
#define FAULTS true
#endif

/* ---------------------------------------------------------------------- Redis -- */

#define HOLDS(p, w, s) (rec[p].status == s && rec[p].holder == w)

inline end_lookup() { lookup_node = NO_NODE; conclusive = false; found = false }

#ifdef SAVE_ON_OTHER_PRIMARY /* a lookup's save is refused only if request id or status differ */
byte lookup_holder = NO_ONE;
inline record_changed(n) { skip }
#define AS_READ(p) (lookup_holder != NO_ONE && HOLDS(p, lookup_holder, verifying))
#else
inline record_changed(n) { /* a lookup that read node n's record ends */
	if :: lookup_node == n -> end_lookup() :: else fi
}
#define AS_READ(p) true
#endif

inline reset_times(n) { rec[n].lease = 0; rec[n].settle_here = false; rec[n].settle = 0; rec[n].not_found_once = false }

inline write(n, to, by) {
	rec[n].status = to; rec[n].holder = by; reset_times(n);
#ifdef CANCEL
	rec[n].unknown = (to == verifying -> true : rec[n].unknown);
#endif
	record_changed(n)
}

inline save_unknown(n, by) { /* the outcome is unknown; settle counts from now */
	write(n, verifying, by);
	rec[n].settle_here = true; rec[n].settle = SETTLE
}

inline close_connection(w) { conn[w] = NO_NODE; has[w] = 0 }

inline drop_clients(n) { /* a node that is no longer a primary closes its connections */
	if :: conn[0] == n -> close_connection(0) :: else fi;
	if :: conn[1] == n -> close_connection(1) :: else fi;
	if :: conn[2] == n -> close_connection(2) :: else fi
}

/* WAIT, on the connection of the write: the replicas that are connected to that node and
 * have the write. */
#define CONNECTED(p, n) (n != p && follows[n] == p)
#define HAS(w, n) (CONNECTED(conn[w], n) && ((has[w] >> n) & 1))
#if REPLICAS == 2
#define COUNT_HAVE(w) (HAS(w, 1) + HAS(w, 2))
#define COUNT_CONNECTED(p) (CONNECTED(p, 1) + CONNECTED(p, 2))
#else
#define COUNT_HAVE(w) HAS(w, 1)
#define COUNT_CONNECTED(p) CONNECTED(p, 1)
#endif

#if WAIT == AUTO
byte least[3]; /* WAIT's argument: the number of replicas that were connected when it was sent */
#ifdef COUNT_BEFORE_WRITE /* the replicas are counted only before the write */
#define ENOUGH(w) (COUNT_HAVE(w) >= least[w])
#else                     /* they are counted again with WAIT's answer */
#define ENOUGH(w) (COUNT_HAVE(w) >= least[w] && COUNT_HAVE(w) >= COUNT_CONNECTED(conn[w]))
#endif
inline connect(w, p) {
	conn[w] = p; has[w] = 0;
	least[w] = (COUNT_CONNECTED(p) > 1 -> COUNT_CONNECTED(p) : 1)
}
#else
#ifdef WAIT_ON_OTHER_CONNECTION /* WAIT is sent to the present primary, not to the node of the write */
#define ENOUGH(w) (COUNT_CONNECTED(0) >= WAIT)
#else
#define ENOUGH(w) (COUNT_HAVE(w) >= WAIT)
#endif
inline connect(w, p) { conn[w] = p; has[w] = 0 }
#endif

#define ACKNOWLEDGED(w) (conn[w] != NO_NODE && ENOUGH(w))
#define UNACKNOWLEDGED(w) (FAULTS || conn[w] == NO_NODE) /* timeout, or connection lost */

#define LACKS(w, n) (conn[w] == follows[n] && !((has[w] >> n) & 1))
#define BEHIND(n) (rec[n].status != rec[follows[n]].status || rec[n].holder != rec[follows[n]].holder || \
	LACKS(0, n) || LACKS(1, n) || LACKS(2, n))

inline mark_replicated(w, n) { if :: conn[w] == follows[n] -> has[w] = has[w] | (1 << n) :: else fi }

/* A replica has the record of its primary as it was at some time: every write up to a point
 * of the replication stream, and none after it. */
inline replicate(n) {
	rec[n].status = rec[follows[n]].status; rec[n].holder = rec[follows[n]].holder;
#ifdef CANCEL
	rec[n].unknown = rec[follows[n]].unknown;
#endif
	mark_replicated(0, n); mark_replicated(1, n); mark_replicated(2, n)
}

inline keep_client(w, n) { /* a client stays connected to the old primary, whose number is now n */
	if :: conn[w] == 0 -> conn[w] = n; has[w] = has[w] & ~(1 << n) :: else fi
}

/* Any replica may be elected, whatever writes it lacks. With AUTO it must be connected: WAIT
 * did not wait for the others. */
#if WAIT == AUTO && !defined(DISCONNECTED_ELECTED)
#define ELIGIBLE(n) (follows[n] == 0)
#else
#define ELIGIBLE(n) (!PRIMARY(n))
#endif
#if REPLICAS == 2
#define NO_OLD_PRIMARY (!PRIMARY(1) && !PRIMARY(2)) /* the last old primary follows the new one */
#else
#define NO_OLD_PRIMARY (!PRIMARY(1))
#endif

/* A node other than the elected primary. */
proctype Node(byte n) {
	mtype status;
	byte holder;
#ifdef CANCEL
	bool unknown;
#endif
end:	do
	/* [replicate] The node catches up with the primary that it follows. */
	:: d_step { follows[n] != NO_NODE && !PRIMARY(n) && PRIMARY(follows[n]) && BEHIND(n) ->
		printf("node %d: [replicate] %e from node %d\n", n, rec[follows[n]].status, follows[n]);
		replicate(n)
	}
	/* [attach] The node starts to follow the elected primary and copies its data. Writes
	 * that an old primary accepted in the meantime are lost. */
	:: d_step { follows[n] != 0 ->
		printf("node %d: [attach] to the elected primary\n", n);
		drop_clients(n); record_changed(n); reset_times(n);
#if REPLICAS == 2
		if :: follows[OTHER(n)] == n -> follows[OTHER(n)] = NO_NODE :: else fi;
#endif
		follows[n] = 0;
		replicate(n)
	}
#if WAIT == AUTO
	/* [disconnect] The replica is no longer connected, and not counted. */
	:: d_step { FAULTS && follows[n] == 0 ->
		printf("node %d: [disconnect]\n", n);
		follows[n] = NO_NODE
	}
#endif
	/* [failover] The node is elected, with the data that it has. The old primary gets its
	 * number, and keeps its clients and any replica that has not attached to the new one. */
	:: d_step { FAULTS && ELIGIBLE(n) && NO_OLD_PRIMARY ->
		printf("node %d: [failover] is elected: from now on node 0, the old primary is node %d\n", n, n);
		status = rec[n].status; holder = rec[n].holder;
		rec[n].status = rec[0].status; rec[n].holder = rec[0].holder;
		rec[0].status = status; rec[0].holder = holder;
#ifdef CANCEL
		unknown = rec[n].unknown; rec[n].unknown = rec[0].unknown; rec[0].unknown = unknown; unknown = false;
#endif
#ifdef OLD_PRIMARY_STOPS /* the old primary is down, not only partitioned */
		drop_clients(0); record_changed(0);
		reset_times(n); follows[n] = NO_NODE;
#else
		rec[n].lease = rec[0].lease; rec[n].settle_here = rec[0].settle_here;
		rec[n].settle = rec[0].settle; rec[n].not_found_once = rec[0].not_found_once;
		keep_client(0, n); keep_client(1, n); keep_client(2, n);
		if :: lookup_node == 0 -> lookup_node = n :: else fi;
		follows[n] = n;
#endif
#if REPLICAS == 2
		if :: follows[OTHER(n)] == 0 -> follows[OTHER(n)] = follows[n] :: else fi;
#endif
		reset_times(0);
#ifdef SETTLE_KEPT /* settle and the count continue after a failover; the new clock is ahead */
		if
		:: status == verifying -> rec[0].settle_here = true; rec[0].not_found_once = true
		:: else
		fi;
#endif
#ifdef REACHABLE
		failed_over = (sends > 0);
#endif
		status = 0; holder = 0;
		assert(!enqueued || rec[0].status != missing) /* nothing enqueued is lost */
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

/* `enqueue create`. */
proctype Client() {
	byte p;
	bool duplicate;
create:
	/* [create] Ledger.Create: the script, and WAIT on the same connection. */
	atomic {
		any_primary(p);
		printf("client: [create] on node %d, found %e\n", p, rec[p].status);
		if
		:: rec[p].status == missing -> write(p, queued, NO_ONE)
		:: else -> duplicate = true
		fi;
		connect(CLIENT, p); p = 0
	}
end:	if
#ifdef DUPLICATE_BEFORE_ACK /* `duplicate` is answered without waiting for replicas */
	:: d_step { ACKNOWLEDGED(CLIENT) || duplicate ->
#else
	:: d_step { ACKNOWLEDGED(CLIENT) ->
#endif
		printf("client: enqueued, or duplicate\n");
		close_connection(CLIENT); duplicate = false;
		enqueued = true;
		assert(rec[0].status != missing) /* nothing enqueued is lost */
	}
	/* `failed`: the same content is submitted again under the same id. */
	:: d_step { UNACKNOWLEDGED(CLIENT) -> close_connection(CLIENT); duplicate = false } -> goto create
	fi
}

#ifdef CANCEL
#ifdef CANCEL_AFTER_UNKNOWN /* also after a request whose outcome was unknown and that was not found */
#define CERTAINLY_UNSENT(p) (rec[p].status == queued)
#else
#define CERTAINLY_UNSENT(p) (rec[p].status == queued && !rec[p].unknown)
#endif

/* `enqueue cancel`, or DELETE of the HTTP API. It uses the client's connection. */
proctype OrderSystem() {
	byte p;
#ifdef CANCEL_NOT_FENCED
	bool read;
#endif
again:
	/* [cancel] Ledger.Cancel: the save compares the request id that was read, so reading and
	 * writing are one step: if the record has changed, it is read again. */
#ifdef CANCEL_NOT_FENCED /* what was read may have changed when it is written */
	atomic { any_primary(p); read = CERTAINLY_UNSENT(p) || rec[p].status == cancelled; p = 0 }
#define MAY_CANCEL(p) read
#else
#define MAY_CANCEL(p) (CERTAINLY_UNSENT(p) || rec[p].status == cancelled)
#endif
	atomic {
		any_primary(p);
		printf("order system: [cancel] on node %d, found %e\n", p, rec[p].status);
		if
		:: MAY_CANCEL(p) ->
			if :: rec[p].status != cancelled -> write(p, cancelled, NO_ONE) :: else fi;
			connect(CLIENT, p); p = 0
		:: else -> p = 0; goto end /* refused */
		fi
	}
	if
#ifdef CANCEL_BEFORE_ACK /* it is answered without waiting for replicas */
	:: d_step { true ->
#else
	:: d_step { ACKNOWLEDGED(CLIENT) ->
#endif
		printf("order system: cancelled\n");
		close_connection(CLIENT);
		withdrawn = true;
		assert(!(withdrawn && request != none)) /* no request may be processed, or was */
	}
	/* Not known to be durable: it cancels again, or gives up. */
	:: d_step { UNACKNOWLEDGED(CLIENT) -> close_connection(CLIENT) } ->
		if :: goto again :: skip fi
	fi;
end:	skip
}
#endif

/* -------------------------------------------------------------------- workers -- */

#ifdef ID_REUSED
byte released = NO_ONE; /* the worker whose release has not reached Redis yet */
#endif

#ifdef NO_FENCING /* the holder's request id is not compared */
#define HELD(p, w) (rec[p].status == submitting)
#else
#define HELD(p, w) HOLDS(p, w, submitting)
#endif
#define CLAIMABLE(p) (PRIMARY(p) && rec[p].status == queued)
#if REPLICAS == 2
#define ANY(what) (what(0) || what(1) || what(2))
#else
#define ANY(what) (what(0) || what(1))
#endif

inline clear_holder(n, w) { if :: rec[n].holder == w -> rec[n].holder = NO_ONE :: else fi }

inline end_run(w) { /* the run of the task ends or the worker crashes: no difference to the others */
	clear_holder(0, w); clear_holder(1, w);
#if REPLICAS == 2
	clear_holder(2, w);
#endif
	close_connection(w);
	budget[w] = 0; answer[w] = none;
	if :: sender == w -> sender = NO_ONE :: else fi;
#ifdef SAVE_ON_OTHER_PRIMARY
	if :: lookup_holder == w -> lookup_holder = NO_ONE :: else fi;
#endif
#ifdef ID_REUSED
	if :: released == w -> released = NO_ONE :: else fi;
#endif
	worker0_busy = (w == 0 -> false : worker0_busy)
}

/* [claim] Ledger.Claim. The budget counts from before the command is sent. A claim with the
 * request id that the record already has renews the lease. */
inline claim(w, p) {
	printf("worker %d: [claim] on node %d\n", w, p);
	budget[w] = BUDGET;
	write(p, submitting, w); rec[p].lease = LEASE;
#ifdef SETTLE_FROM_LEASE
	rec[p].settle_here = true;
#endif
	connect(w, p);
	worker0_busy = (w == 0 -> true : worker0_busy)
}

/* No request was sent for this claim, and none will be. On any present primary: */
inline unsent(w) {
	close_connection(w);
	any_primary(p);
	if
	/* the claim again, with the same request id ... */
	:: rec[p].status == queued || HOLDS(p, w, submitting) -> claim(w, p); p = 0; goto claimed
	/* ... or [release] Ledger.release: back to queued. The request id is never used again. */
#ifdef ID_REUSED /* the release is slow: the worker claims again before it arrives */
	:: released == NO_ONE -> released = w; p = 0; goto claimed
#else
	:: HELD(p, w) ->
		printf("worker %d: [release] on node %d\n", w, p);
		write(p, queued, NO_ONE); p = 0; end_run(w); goto idle
#endif
	/* Another worker holds the record, or it is being looked up. */
	:: rec[p].status != queued && !HOLDS(p, w, submitting) -> p = 0; end_run(w); goto idle
	fi
}

/* [record] A final refusal, saved with the same request id on any present primary. */
inline refusal(w) {
	any_primary(p);
	printf("worker %d: [record] rejected on node %d, found %e\n", w, p, rec[p].status);
	if
	:: HELD(p, w) || HOLDS(p, w, verifying) || HOLDS(p, w, rejected) ->
		write(p, rejected, w); connect(w, p); p = 0
#ifdef REPORT_BEFORE_ACK /* the event is read before the save is acknowledged */
		; reported = true
#endif
	:: else -> p = 0; end_run(w); goto idle
	fi
}

/* Submitter.Submit: two workers have the same task. */
proctype Worker(byte w) {
	byte p;
end:
idle:	atomic { (w == 0 || worker0_busy) && ANY(CLAIMABLE) ->
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
#ifdef SEND_BEFORE_ACK /* the request is sent without waiting for the acknowledgement */
	:: d_step { close_connection(w) }
#endif
	:: d_step { ACKNOWLEDGED(w) -> printf("worker %d: claim acknowledged\n", w); close_connection(w) }
	:: atomic { UNACKNOWLEDGED(w) -> unsent(w) }
	:: d_step { FAULTS -> printf("worker %d: crashes\n", w); end_run(w) } -> goto idle
	fi;

may_send:
	if
	/* [send] Submitter.send: the budget is checked just before the first byte is sent. */
	:: d_step {
#ifdef NO_BUDGET_CHECK
		true
#else
		budget[w] > 0
#endif
		->
		printf("worker %d: [send]\n", w);
		assert(request == none || resend_allowed); /* never two that may be processed */
		assert(!reported);                         /* none after `rejected` was reported */
#ifdef CANCEL
		assert(!withdrawn);                        /* none after `cancelled` was answered */
#endif
		request = in_flight; time_left = LATE; sender = w; answer[w] = waiting;
		resend_allowed = false;
#ifdef REACHABLE
		sends = (sends < 2 -> sends + 1 : 2);
#endif
		budget[w] = 0
	}
	:: atomic { budget[w] == 0 -> unsent(w) }
	:: d_step { FAULTS -> printf("worker %d: crashes\n", w); end_run(w) } -> goto idle
	fi;

sent:
	/* [record] Ledger.Save with the worker's request id: the result in the answer. */
	if
	/* Accepted. It is saved even if the claim expired before the answer arrived. */
	:: atomic { answer[w] == yes ->
		any_primary(p);
		printf("worker %d: [record] accepted on node %d, found %e\n", w, p, rec[p].status);
		if
		:: HELD(p, w) || HOLDS(p, w, verifying) -> write(p, accepted, NO_ONE)
		:: else
		fi;
		p = 0; end_run(w); goto idle
	}
	/* Certainly not processed: back to queued. */
	:: atomic { answer[w] == throttled ->
		any_primary(p);
		printf("worker %d: [record] queued again on node %d, found %e\n", w, p, rec[p].status);
		if
		:: HELD(p, w) -> write(p, queued, NO_ONE)
		:: else
		fi;
		p = 0; end_run(w); goto idle
	}
	/* No answer in time. */
	:: atomic { answer[w] == waiting && (FAULTS || sender != w) ->
		any_primary(p);
		printf("worker %d: [record] unknown on node %d, found %e\n", w, p, rec[p].status);
		if
#ifdef RELEASE_AFTER_SEND /* the claim is released although the request may have been sent */
		:: HELD(p, w) -> write(p, queued, NO_ONE)
#else
		:: HELD(p, w) -> save_unknown(p, w)
#endif
		:: else
		fi;
		p = 0; end_run(w); goto idle
	}
	/* A final refusal. No lookup would find it again, so the save waits for replicas. */
	:: atomic { answer[w] == refused -> answer[w] = none; refusal(w) }
	:: d_step { FAULTS ->
		printf("worker %d: crashes\n", w);
#ifdef REACHABLE
		crashed = true;
#endif
		end_run(w)
	} -> goto idle
	fi;

refusing: /* the save is repeated until it is acknowledged */
	if
	:: d_step { ACKNOWLEDGED(w) ->
		end_run(w);
#if defined(REPORT_AFTER_ACK) || defined(REPORT_BEFORE_ACK)
		reported = true
#endif
	} -> goto idle
	:: atomic { UNACKNOWLEDGED(w) -> close_connection(w); refusal(w); goto refusing }
	:: d_step { FAULTS -> printf("worker %d: crashes\n", w); end_run(w) } -> goto idle
	fi
}

#ifdef ID_REUSED
proctype SlowRelease() {
end:	do
	:: d_step { released != NO_ONE ->
		printf("worker %d: [release] arrives at node 0\n", released);
		if
		:: HELD(0, released) -> write(0, queued, NO_ONE)
		:: else
		fi;
		released = NO_ONE
	}
	od
}
#endif

/* --------------------------------------------------------------------- poller -- */

#ifdef NO_EXPIRY /* the claim of a crashed worker does not expire */
#define LEASE_EXPIRED(p) false
#else
#define LEASE_EXPIRED(p) (rec[p].status == submitting && rec[p].lease == 0)
#endif
#define OTHER_PRIMARY(p) (rec[p].status == verifying && !rec[p].settle_here)
#if defined(SETTLE_AT_SAVE) || defined(SAVE_ON_OTHER_PRIMARY)
#define DUE(p) (rec[p].status == verifying && rec[p].settle_here)
#else /* only lookups that change something */
#define DUE(p) (rec[p].status == verifying && rec[p].settle_here && \
	(request == processed || !rec[p].not_found_once || rec[p].settle == 0))
#endif
#define WORK(p) (PRIMARY(p) && (LEASE_EXPIRED(p) || OTHER_PRIMARY(p) || lookup_node == NO_NODE && DUE(p)))

/* The Poller, of any worker. */
proctype Poller() {
	byte p;
end:	do
	:: atomic { ANY(WORK) ->
		if
		:: WORK(0) -> p = 0
		:: WORK(1) -> p = 1
#if REPLICAS == 2
		:: WORK(2) -> p = 2
#endif
		fi;
		if
		/* [expire] Submitter.ExpireClaim: the claim has expired by this primary's clock. It is
		 * unknown whether its request was sent. */
		:: LEASE_EXPIRED(p) ->
			printf("poller: [expire] on node %d\n", p);
#ifdef SETTLE_FROM_LEASE /* settle counts from the end of the lease, by the clock that wrote it */
			if
			:: !rec[p].settle_here -> save_unknown(p, rec[p].holder); rec[p].settle = 0
			:: else -> save_unknown(p, rec[p].holder)
			fi
#else
			save_unknown(p, rec[p].holder)
#endif
		/* [lookup] The primary has changed: settle and the count start from zero. */
		:: OTHER_PRIMARY(p) ->
			printf("poller: [lookup] starts from zero on node %d\n", p);
			save_unknown(p, rec[p].holder)
		/* [lookup] The request to the gateway is sent. The record was read before that,
		 * with the time of the primary. */
		:: lookup_node == NO_NODE && DUE(p) ->
#ifdef SAVE_ON_OTHER_PRIMARY
			lookup_holder = rec[p].holder;
#endif
			lookup_node = p; conclusive = (rec[p].not_found_once && rec[p].settle == 0); found = (request == processed);
			printf("poller: [lookup] for node %d; found: %d\n", p, found)
		fi;
		p = 0
	}
	/* [lookup] The answer is saved on the node that the record was read from; see `lookup_node`. */
	:: atomic { lookup_node != NO_NODE ->
#ifdef SAVE_ON_OTHER_PRIMARY
		any_primary(p);
#else
		p = lookup_node;
#endif
#ifdef SETTLE_AT_SAVE /* settle is checked only when the answer is saved */
		conclusive = (rec[p].not_found_once && rec[p].settle == 0);
#endif
		if
		:: AS_READ(p) && found ->
			printf("poller: [lookup] found, on node %d\n", p);
			write(p, accepted, NO_ONE)
		:: AS_READ(p) && !found && conclusive ->
			printf("poller: [lookup] absent, on node %d\n", p);
#ifdef THEN_RETRY
#ifdef RESEND_AFTER_ABSENT /* a second request is allowed, even if the first is processed later */
			resend_allowed = true;
#endif
			write(p, queued, NO_ONE)
#else
			write(p, needs_review, NO_ONE)
#endif
		:: AS_READ(p) && !found && !conclusive ->
			printf("poller: [lookup] not found, on node %d\n", p);
			rec[p].not_found_once = true
		:: !AS_READ(p)
		fi;
		end_lookup();
		p = 0
	}
	od
}

/* -------------------------------------------------------------------- gateway -- */

inline give_answer(what) { /* only a worker that still waits receives the answer */
	if
	:: sender != NO_ONE -> answer[sender] = what; sender = NO_ONE
	:: else
	fi;
	time_left = 0
}

proctype Gateway() {
end:	do
	:: d_step { request == in_flight ->
		printf("gateway: [gateway] processes the request\n");
		request = processed; give_answer(yes)
	}
	:: d_step { request == in_flight && FAULTS ->
		printf("gateway: [gateway] refuses the request\n");
		request = none; give_answer(refused)
	}
	:: d_step { request == in_flight && FAULTS ->
		printf("gateway: [gateway] does not process the request now\n");
		request = none; give_answer(throttled)
	}
	od
}

/* ----------------------------------------------------------------------- time -- */

#define RUNNING(n) (rec[n].lease > 0 || rec[n].settle > 0)
#define COUNT_DOWN(x) x = (x > 0 -> x - 1 : 0)
/* Without faults, a worker sends within its budget and the gateway answers in time: time
 * passes only after they have. */
#define IN_TIME (FAULTS || (budget[0] == 0 && budget[1] == 0 && time_left == 0))

proctype Time() {
end:	do
	:: d_step { IN_TIME && (budget[0] > 0 || budget[1] > 0 || time_left > 0 || ANY(RUNNING)) ->
		printf("time: [time] passes\n");
		COUNT_DOWN(budget[0]); COUNT_DOWN(budget[1]);
		COUNT_DOWN(rec[0].lease); COUNT_DOWN(rec[0].settle);
		COUNT_DOWN(rec[1].lease); COUNT_DOWN(rec[1].settle);
#if REPLICAS == 2
		COUNT_DOWN(rec[2].lease); COUNT_DOWN(rec[2].settle);
#endif
		if
		:: time_left > 0 ->
#ifndef GATEWAY_ANY_TIME /* with it, the gateway may process a request at any later time */
			/* The request was lost on its way and will never be processed. */
			time_left--;
			if :: time_left == 0 -> request = none; sender = NO_ONE :: else fi
#endif
		:: else
		fi
	}
	od
}

#ifdef LIVENESS
proctype EndFaults() {
	faults_over = true;
	do /* endless, so that every run ends in a cycle */
	:: faults_over -> skip
	od
}

#define FINAL(s) (s == accepted || s == rejected || s == needs_review || s == cancelled)
#ifdef CREATE
ltl ends { <> [] (enqueued && rec[0].status != missing) }
#else
ltl ends { <> [] FINAL(rec[0].status) }
#endif
#endif

#ifdef REACHABLE
/* Situations that must be reachable: a model without them would prove nothing. Spin lists
 * the lines that it never reached, and scripts/model fails if one of these is among them. */
bool hit; /* set in a separate step after the condition, so that spin can list it */
proctype Reachable() {
	do
	:: atomic { rec[0].status == accepted && sends == 1 && !crashed && !failed_over -> hit = true; hit = false } /* sent, processed, recorded */
	:: atomic { rec[0].status == rejected -> hit = true; hit = false } /* refused finally */
	:: atomic { rec[0].status == submitting && crashed && request == processed -> hit = true; hit = false } /* processed, and its worker crashed */
	:: atomic { rec[0].status == verifying && crashed && request == processed -> hit = true; hit = false } /* then its claim expired */
	:: atomic { rec[0].status == accepted && crashed && sends == 1 -> hit = true; hit = false } /* then a lookup found it */
	:: atomic { rec[0].status == submitting && sends == 1 && rec[1].status == accepted && PRIMARY(1) -> hit = true; hit = false } /* a failover lost what was recorded */
	:: atomic { rec[0].status == accepted && failed_over && sends == 1 && rec[1].status == accepted && !PRIMARY(1) -> hit = true; hit = false } /* and it was found again */
	:: atomic { rec[0].status == queued && rec[1].status == submitting && PRIMARY(1) && budget[0] > 0 -> hit = true; hit = false } /* a failover lost a claim */
	:: atomic { rec[0].status == verifying && budget[0] > 0 && sends == 0 -> hit = true; hit = false } /* a claim expired early: the clock is ahead */
	:: atomic { rec[0].status == queued && sends == 1 && crashed && request == none -> hit = true; hit = false } /* absent: queued again */
	:: atomic { rec[0].status == accepted && sends == 2 && crashed -> hit = true; hit = false } /* sent again, processed, recorded */
#ifdef CANCEL
	:: atomic { withdrawn && sends == 0 && !failed_over -> hit = true; hit = false } /* cancelled before it was sent */
	:: atomic { withdrawn && sends == 1 && request == none -> hit = true; hit = false } /* cancelled after a refusal that means "not processed" */
	:: atomic { rec[0].status == queued && rec[1].status == cancelled && PRIMARY(1) && !withdrawn -> hit = true; hit = false } /* a failover lost a cancellation that was not answered */
	:: atomic { rec[0].status == cancelled && budget[0] > 0 && sends == 0 -> hit = true; hit = false } /* cancelled while a worker waits with a claim that a failover lost */
#endif
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
			rec[n].holder = NO_ONE
		}
		n = 0;
		run Node(1);
#if REPLICAS == 2
		run Node(2);
#endif
#ifdef CREATE
		run Client();
#endif
#ifdef CANCEL
		run OrderSystem();
#endif
#ifndef NO_SUBMIT
		run Worker(0);
#ifndef ONE_WORKER
		run Worker(1);
#endif
		run Poller(); run Gateway();
#endif
		run Time();
#ifdef REACHABLE
		run Reachable();
#endif
#ifdef LIVENESS
		run EndFaults();
#endif
#ifdef ID_REUSED
		run SlowRelease();
#endif
	}
}
