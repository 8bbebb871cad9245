/* The landing protocol for one partition, for spin. What is modelled, what is left
   out and how to run it: README.md in this folder. The code: lake/landing.py
   (objects) and ingestion/collector/engine.py (who writes which, and when).

   Every worker may act at any time: nothing here depends on who owns the partition. A
   frozen worker is one that is not scheduled, and when it is, it is a zombie. A request
   that arrives late is the put of such a worker.

   -DWORKERS=n and -DOFFSETS=n set the size. -DTROUBLE=n limits crashes and conflicts to
   n in all, and lets workers stop for good while one is left: then every run is finite
   and has to end with everything landed. The other macros each break one rule. */

#ifdef CONFLICT_AS_EXISTS
#define CLAIM_CONFLICT_AS_EXISTS
#define MAIN_CONFLICT_AS_EXISTS
#endif

#ifndef WORKERS
#define WORKERS 3
#endif
#ifndef OFFSETS
#define OFFSETS 3
#endif

#define BIT(n) (1 << (n))
#define RANGE(from, to) (BIT(to) - BIT(from)) /* the set of offsets [from, to) */
#define EVERYTHING RANGE(0, OFFSETS)

/* Sets of ends are bit sets of 1 .. 5. */
#define LOWEST(set) (set & 2 -> 1 : (set & 4 -> 2 : (set & 8 -> 3 : (set & 16 -> 4 : 5))))
#define HIGHEST(set) (set & 32 -> 5 : (set & 16 -> 4 : (set & 8 -> 3 : (set & 4 -> 2 : 1))))

/* The broker: the start of the log, its end, and the group's offset, which is written and
   never read. Retention may move the start at any time. Workers look at it only when they
   start, so it moves just then (`look_at_log`), and one that claims have reached is as good
   as 0: the same runs, in a tenth of the states. */
byte log_start = 0;
byte log_end = 0;
#ifdef RESUME_FROM_COMMIT
byte committed = 0; /* `init` starts it anywhere: a topic of that name may have been there before */
#endif

/* The store. `claims[s]` and `mains[s]` are the sets of ends stored for the start s. */
byte claims[OFFSETS];
byte mains[OFFSETS];
byte rejects = 0;        /* starts whose rejects are stored */
byte manifests[OFFSETS]; /* the end it states, 0 where there is none */

/* For the properties only: the offsets that are in some claim, and in some main object. */
byte claimed = 0;
byte landed = 0;

#ifdef CHAIN_AT_LOG_START
/* No claim holds what the log lost before the chain began: that alone is not held against it. */
#define DONE (landed | RANGE(0, log_start))
#else
#define DONE landed
#endif

#ifdef TROUBLE
byte trouble = TROUBLE;
byte alive = WORKERS;
#define MAY_FAIL (trouble > 0)
#define FAIL trouble--
#else
#define MAY_FAIL true
#define FAIL skip
#endif

/* What a create-only put finds under its key. */
#define CLAIM_EXISTS (claims[next] != 0)
#define MAIN_EXISTS (mains[land] & BIT(end))
#define MANIFEST_EXISTS (manifests[land] != 0)

#ifdef END_IN_CLAIM_KEY
#undef CLAIM_EXISTS
#define CLAIM_EXISTS (claims[next] & BIT(want))
#endif
#ifdef TWO_MAIN_OBJECTS
#undef MAIN_EXISTS
#define MAIN_EXISTS (my_mains & BIT(land))
#endif
#ifdef CLAIMS_OVERWRITTEN
#undef CLAIM_EXISTS
#define CLAIM_EXISTS false
#endif

inline forget_log_start(reached) {
#ifdef CHAIN_AT_LOG_START
    skip
#else
    log_start = (log_start > reached -> log_start : 0)
#endif
}

inline store_claim() {
#ifndef DATA_ONLY
    /* Claims follow one another without hole or overlap. */
    assert(claimed == RANGE(0, next));
#endif
    claimed = claimed | RANGE(next, want);
    forget_log_start(want);
#ifdef CLAIMS_OVERWRITTEN
    claims[next] = BIT(want)
#else
    claims[next] = claims[next] | BIT(want)
#endif
}

inline store_main() {
#ifdef STALE_EOF
    content = RANGE(land, (cut > land && cut < end -> cut : end));
#else
    content = RANGE(land, end);
#endif
    /* No offset is in two main objects, and what one refers to is there. */
    assert((landed & content) == 0);
    assert(rejects & BIT(land));
    landed = landed | content;
    mains[land] = mains[land] | BIT(end);
#ifdef TWO_MAIN_OBJECTS
    my_mains = my_mains | BIT(land);
#endif
    content = 0
}

inline store_manifest() {
    /* It describes a stored object, and everything before is landed. */
    assert(mains[land] & BIT(end));
    assert((DONE & RANGE(0, end)) == RANGE(0, end));
    /* What readers saw of a range never changes: any of them may have looked by now. */
    assert(manifests[land] == 0 || manifests[land] == end);
    manifests[land] = end
}

/* A worker starts by two listings: first of manifests, then of claims. */
inline list_manifests() {
    want = 0; queue = 0; land = 0;
#ifdef STALE_EOF
    cut = 0; eof = 0;
#endif
#ifdef RESUME_FROM_COMMIT
    land = committed;
#elif defined(SKIP_OPEN_CLAIMS)
    do
    :: land < OFFSETS && claims[land] != 0 -> land = LOWEST(claims[land])
    :: else -> break
    od;
#elif !defined(CHAIN_AT_LOG_START)
    do
    :: land < OFFSETS && manifests[land] != 0 -> land = manifests[land]
    :: else -> break
    od;
#endif
    step = STARTING
}

inline look_at_log() {
    do
    :: log_start < log_end -> log_start++ /* read or not, claimed or not */
    :: break
    od
}

inline list_claims() {
#ifdef CHAIN_AT_LOG_START
    /* The chain begins where its first claim does, and without one where the log does now. */
    do
    :: land < OFFSETS && claims[land] == 0 -> land++
    :: else -> break
    od;
    land = (land == OFFSETS -> log_start : land);
    do
    :: land < OFFSETS && manifests[land] != 0 -> land = manifests[land]
    :: else -> break
    od;
#endif
    next = land;
    do
    :: next < OFFSETS && claims[next] != 0 ->
       next = LOWEST(claims[next]);
       queue = queue | BIT(next)
    :: else -> break
    od;
    /* What the log has lost behind the last claim is claimed first, as a gap. */
    want = (next < log_start -> log_start : 0);
    forget_log_start(next);
    next = 0; step = REJECTS
}

mtype = { STARTING, REJECTS, MAIN, MANIFEST, COMMIT };

/* One thread consumes and claims, the other lands what is claimed, in order. */
proctype Worker() {
    byte land = 0;         /* up to here this worker has seen everything landed */
    byte queue = 0;        /* ends of the claims from `land` on that it has to land */
    mtype step = STARTING; /* where it is with the first of them */
    byte want = 0;         /* end of what it holds unclaimed, 0 for nothing */
    byte next = 0, end = 0, content = 0; /* 0 between steps */
#ifdef TWO_MAIN_OBJECTS
    byte my_mains = 0;
#endif
#ifdef STALE_EOF
    byte cut = 0;          /* a claim that is taken for ended here */
    bit eof = 0;           /* the end of the log was seen behind what it holds */
#endif

    do
    /* A crash, and the start that follows it whenever it may be. */
    :: d_step { MAY_FAIL -> FAIL; list_manifests() }
    :: atomic { step == STARTING -> look_at_log(); list_claims() }
#ifdef TROUBLE
    :: d_step { MAY_FAIL && alive > 1 ->
               FAIL; alive--; want = 0; queue = 0; land = 0; step = STARTING } -> break
#endif

    /* Consume up to some offset: rotation can fall anywhere. */
    :: atomic { step != STARTING && want == 0 && (queue -> HIGHEST(queue) : land) < log_end ->
           want = (queue -> HIGHEST(queue) : land) + 1;
           do
           :: want < log_end -> want++
           :: break
           od;
#ifdef STALE_EOF
           eof = (want == log_end)
#endif
       }

    /* Claim. */
    :: atomic { want != 0 ->
           next = (queue -> HIGHEST(queue) : land);
           if
#ifdef NO_CLAIM
           :: queue = queue | BIT(want); want = 0
#else
           :: !(CLAIM_EXISTS) -> /* created */
              store_claim(); queue = queue | BIT(want); want = 0
           :: !(CLAIM_EXISTS) -> /* created, and the answer is lost: it will try again */
              store_claim()
           :: !(CLAIM_EXISTS) && MAY_FAIL -> /* 409: nothing is stored, it will try again */
              FAIL;
#ifdef CLAIM_CONFLICT_AS_EXISTS
              queue = queue | (claims[next] -> claims[next] : BIT(want)); want = 0
#endif
           :: CLAIM_EXISTS -> /* 412: what is stored is read back and adopted */
#ifdef STALE_EOF
              if
              :: eof && LOWEST(claims[next]) > want -> cut = want
              :: else -> skip
              fi;
#endif
#if defined(BOUNDS_NOT_ADOPTED) || defined(END_IN_CLAIM_KEY)
              queue = queue | BIT(want);
#elif defined(WAIT_FOR_CLAIMANT)
              (landed & BIT(next));
              queue = queue | claims[next];
#else
              queue = queue | claims[next];
#endif
              want = 0
#endif
           fi;
           next = 0
       }

    /* Land the first claimed range. */
#ifdef MAIN_BEFORE_REJECTS
    :: d_step { queue && step == REJECTS -> step = MAIN }
    :: d_step { queue && step == MANIFEST -> rejects = rejects | BIT(land) }
#else
    :: d_step { queue && step == REJECTS -> rejects = rejects | BIT(land); step = MAIN }
    :: d_step { queue && step == REJECTS && !(rejects & BIT(land)) -> rejects = rejects | BIT(land) }
#endif
    :: atomic { queue && step == MAIN ->
           end = LOWEST(queue);
           if
           :: !(MAIN_EXISTS) -> store_main(); step = MANIFEST
           :: !(MAIN_EXISTS) -> store_main() /* the answer is lost */
           :: !(MAIN_EXISTS) && MAY_FAIL -> /* 409 */
              FAIL;
#ifdef MAIN_CONFLICT_AS_EXISTS
              step = COMMIT
#endif
           :: MAIN_EXISTS -> step = MANIFEST /* 412: that object is the range */
           fi;
           end = 0
       }
    :: atomic { queue && step == MANIFEST ->
           end = LOWEST(queue);
           if
           :: !(MANIFEST_EXISTS) -> store_manifest(); step = COMMIT
           :: !(MANIFEST_EXISTS) -> store_manifest() /* the answer is lost */
           :: MANIFEST_EXISTS -> step = COMMIT
           fi;
           end = 0
       }
    :: d_step { queue && step == COMMIT ->
           end = LOWEST(queue);
           /* A commit never passes what is not landed. */
           assert((DONE & RANGE(0, end)) == RANGE(0, end));
#ifdef RESUME_FROM_COMMIT
           committed = end; /* A former owner's commit makes it regress. */
#endif
           queue = queue & ~BIT(end); land = end; step = REJECTS; end = 0
       }

    /* Everything is done: each offset is in a main object (and by store_main in no other). */
    :: d_step { land == OFFSETS -> assert(DONE == EVERYTHING) } -> break
    od
}

proctype Producer() {
    do
    :: log_end < OFFSETS -> log_end++
    :: log_end == OFFSETS -> break
    od
}

init {
    byte started = 0;
    atomic {
#ifdef RESUME_FROM_COMMIT
        do
        :: committed < OFFSETS -> committed++
        :: break
        od;
#endif
        run Producer();
        do
        :: started < WORKERS -> run Worker(); started++
        :: started == WORKERS -> break
        od
    }
}
