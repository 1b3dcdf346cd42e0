// Barriers, votes, shuffles.

#include <cstring>

#include "tests/cuda_on_host/happens_before.h"
#include "tests/cuda_on_host/meeting.h"

namespace cuda_on_host {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;

bool IsSamePlace(const Loc& a, const Loc& b) {
  return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

void CheckBarrierPlace(const Barrier& barrier, int id, int expected,
                       const char* what, const Loc& loc) {
  if (id == 0 && !IsSamePlace(barrier.loc, loc)) {
    ReportFinding("barrier divergence",
                  std::string("threads of one block meet at different ") +
                      what + ": " + Where(barrier.loc) + " and " + Where(loc) +
                      ", thread " + std::to_string(Self()->index),
                  Where(loc));
  } else if (id != 0 && barrier.expected != expected) {
    ReportFinding("barrier divergence",
                  "named barrier " + std::to_string(id) + " for " +
                      std::to_string(barrier.expected) + " threads and for " +
                      std::to_string(expected) + ", " + Where(loc) +
                      ", thread " + std::to_string(Self()->index),
                  Where(loc));
  }
}

// Barrier 0 is the block's. Returns {threads whose predicate holds, all}.
const int* SyncBarrier(int id, int expected, const char* what, int predicate,
                       const Loc& loc) {
  Thread* const self = Self();
  Block& block = *self->block;
  Barrier& barrier = block.barriers[id];
  if (barrier.arrived == 0) {
    barrier.loc = loc;
    barrier.expected = expected;
  } else {
    CheckBarrierPlace(barrier, id, expected, what, loc);
  }
  ++barrier.arrived;
  barrier.count += predicate != 0;
  int* const result = barrier.result[barrier.generation & 1];
  barrier.waiting.push_back(self);
  const int need = id == 0 ? block.live : expected;
  if (barrier.arrived < need) {
    WaitAs(Thread::State::kAtBarrier, what, 0, loc);
  } else {
    result[0] = barrier.count;
    result[1] = barrier.arrived;
    if (id == 0) {
      for (const Thread* t : barrier.waiting) {
        block.acquired.insert(t->acquired.begin(), t->acquired.end());
      }
    } else {
      block.has_named_barrier = true;
      JoinClocks(block, barrier.waiting);
    }
    for (Thread* t : barrier.waiting) {
      if (t != self) MakeReady(t);
    }
    barrier.waiting.clear();
    barrier.arrived = barrier.count = 0;
    ++barrier.generation;
    if (block.kernel->counters != nullptr) ++block.kernel->counters->barriers;
    MaybeYield(2);
  }
  if (id == 0) ++self->epoch;
  return result;
}

[[noreturn]] void WarpFault(const char* kind, const std::string& text,
                            const Loc& loc) {
  const Thread& t = *Self();
  ReportFinding(kind,
                text + ", at " + Where(loc) + ", block " +
                    std::to_string(t.block->index) + " thread " +
                    std::to_string(t.index),
                Where(loc));
  KillBlock(cudaErrorLaunchFailure);
}

struct ShufflePayload {
  uint64_t in, out;
  int argument;
};

int SourceLane(Shuffle kind, int lane, int argument, int width) {
  const int base = lane & ~(width - 1);
  switch (kind) {
    case Shuffle::kIndex:
      return base + (argument & (width - 1));
    case Shuffle::kUp:
      return lane - argument < base ? lane : lane - argument;
    case Shuffle::kDown:
      return lane + argument >= base + width ? lane : lane + argument;
    case Shuffle::kXor:
      return (lane ^ argument) >= base + width ? lane : lane ^ argument;
  }
  return lane;
}

void PerformShuffle(Shuffle kind, unsigned mask, int width, void** payloads,
                    const Loc& loc) {
  for (unsigned m = mask; m != 0; m &= m - 1) {
    const int lane = __builtin_ctz(m);
    auto* const p = static_cast<ShufflePayload*>(payloads[lane]);
    const int source = SourceLane(kind, lane, p->argument, width);
    if ((mask >> source & 1) == 0) {
      ReportFinding("warp mask",
                    "__shfl_sync: lane " + std::to_string(lane) +
                        " reads lane " + std::to_string(source) +
                        ", which is not in the mask, at " + Where(loc) +
                        ", thread " + std::to_string(Self()->warp * 32 + lane),
                    Where(loc));
      p->out = 0xDEADBEEFDEADBEEFull;
    } else {
      p->out = static_cast<ShufflePayload*>(payloads[source])->in;
    }
  }
}

}  // namespace

bool Arrive(const char* what, unsigned mask, void* payload, const Loc& loc,
            WarpMeeting* complete) {
  Thread* const self = Self();
  Block& block = *self->block;
  const unsigned bit = 1u << self->lane;
  const size_t warp = static_cast<size_t>(self->warp);
  if ((mask & bit) == 0) {
    WarpFault("warp mask",
              std::string(what) + " by lane " + std::to_string(self->lane) +
                  ", which its own mask leaves out",
              loc);
  }
  if (const unsigned gone = mask & ~block.alive[warp]; gone != 0) {
    WarpFault("warp mask",
              std::string(what) + " names lane " +
                  std::to_string(__builtin_ctz(gone)) +
                  ", which has ended or does not exist",
              loc);
  }
  std::vector<WarpMeeting>& meetings = block.warps[warp];
  WarpMeeting* meeting = nullptr;
  for (WarpMeeting& m : meetings) {
    if (m.mask == mask && (m.arrived & bit) == 0 &&
        std::strcmp(m.what, what) == 0) {
      meeting = &m;
      break;
    }
    if ((m.mask & mask) != 0) {
      WarpFault("warp divergence",
                std::string(what) + " while lanes that it must meet wait in " +
                    m.what + " at " + Where(m.loc),
                loc);
    }
  }
  if (meeting == nullptr) {
    meeting = &meetings.emplace_back();
    meeting->mask = mask;
    meeting->what = what;
    meeting->loc = loc;
  } else if (!IsSamePlace(meeting->loc, loc)) {
    ReportFinding("warp divergence",
                  std::string(what) + " is reached at " + Where(meeting->loc) +
                      " and at " + Where(loc) + ", thread " +
                      std::to_string(self->index),
                  Where(loc));
  }
  meeting->payload[self->lane] = payload;
  meeting->arrived |= bit;
  if (meeting->arrived != mask) {
    WaitAs(Thread::State::kInWarp, what, mask, loc);
    return false;
  }
  *complete = *meeting;
  meetings.erase(meetings.begin() + (meeting - meetings.data()));
  return true;
}

void Adjourn(const WarpMeeting& meeting) {
  Thread* const self = Self();
  Block& block = *self->block;
  for (unsigned m = meeting.mask & ~(1u << self->lane); m != 0; m &= m - 1) {
    MakeReady(
        &block
             .threads[static_cast<size_t>(self->warp * 32 + __builtin_ctz(m))]);
  }
  MaybeYield(4);
}

void SyncThreads(Loc loc) { SyncBarrier(0, 0, "__syncthreads", 0, loc); }

int SyncThreadsVote(int predicate, Vote vote, Loc loc) {
  const int* const r = SyncBarrier(0, 0, "__syncthreads_vote", predicate, loc);
  switch (vote) {
    case Vote::kCount:
      return r[0];
    case Vote::kAll:
      return r[0] == r[1];
    case Vote::kAny:
      return r[0] != 0;
  }
  return 0;
}

void NamedBarrierSync(int id, int threads, Loc loc) {
  if (id < 1 || id > 15 || threads % 32 != 0) {
    WarpFault("barrier",
              "named barrier " + std::to_string(id) + " of " +
                  std::to_string(threads) + " threads is out of range",
              loc);
  }
  SyncBarrier(id, threads, "named barrier", 0, loc);
}

void SyncWarp(unsigned mask, Loc loc) {
  Meet("__syncwarp", mask, nullptr, loc, [&](void**) {
    Thread* const self = Self();
    std::vector<Thread*> members;
    for (unsigned m = mask; m != 0; m &= m - 1) {
      members.push_back(&self->block->threads[static_cast<size_t>(
          self->warp * 32 + __builtin_ctz(m))]);
    }
    JoinClocks(*self->block, members);
  });
}

uint64_t ShuffleBits(Shuffle kind, unsigned mask, uint64_t value, int argument,
                     int width, Loc loc) {
  ShufflePayload mine{value, 0, argument};
  Meet("__shfl_sync", mask, &mine, loc, [&](void** payloads) {
    PerformShuffle(kind, mask, width, payloads, loc);
  });
  return mine.out;
}

unsigned Ballot(unsigned mask, int predicate, Loc loc) {
  unsigned mine = predicate != 0;
  Meet("__ballot_sync", mask, &mine, loc, [&](void** payloads) {
    unsigned bits = 0;
    for (unsigned m = mask & kAllLanes; m != 0; m &= m - 1) {
      const int lane = __builtin_ctz(m);
      bits |= *static_cast<unsigned*>(payloads[lane]) << lane;
    }
    for (unsigned m = mask; m != 0; m &= m - 1) {
      *static_cast<unsigned*>(payloads[__builtin_ctz(m)]) = bits;
    }
  });
  return mine;
}

}  // namespace cuda_on_host
