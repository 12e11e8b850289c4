// The threads of one block as fibers.
#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "shim.h"

namespace cushim {
uint3 thread_index, block_index, block_size, grid_size;

namespace {
constexpr int WARP = 32;
constexpr size_t STACK = 64 * 1024;

enum State { READY, AT_BARRIER, IN_WARP, DONE };

struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(STACK);
    State state;
    unsigned lanes;   // with which it waits
    uint64_t offered;  // to the lanes of its warp
};

ucontext_t scheduler;
std::vector<Fiber> fibers;
int running;
void (*entry)(void**);
void** entry_arguments;

void wait(State state) {
    fibers[running].state = state;
    swapcontext(&fibers[running].context, &scheduler);
}

void start() {
    entry(entry_arguments);
    wait(DONE);
}

void prepare(int threads) {
    for (int i = 0; i < threads; ++i) {
        Fiber& fiber = fibers[i];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = nullptr;
        fiber.state = READY;
        makecontext(&fiber.context, start, 0);
    }
}

int count(State state, int threads) {
    return (int)std::count_if(fibers.begin(), fibers.begin() + threads,
                              [&](const Fiber& f) { return f.state == state; });
}

// Wake the lanes that wait for one another and are all there.
bool wake_warps(int threads) {
    bool woken = false;
    for (int first = 0; first < threads; first += WARP) {
        const int size = std::min(WARP, threads - first);
        for (int i = 0; i < size; ++i) {
            const unsigned lanes = fibers[first + i].lanes;
            bool complete = fibers[first + i].state == IN_WARP && (lanes >> i & 1);
            for (int j = 0; complete && j < size; ++j) {
                const Fiber& other = fibers[first + j];
                if (lanes >> j & 1) complete = other.state == IN_WARP && other.lanes == lanes;
            }
            if (!complete) continue;
            for (int j = 0; j < size; ++j)
                if (lanes >> j & 1) fibers[first + j].state = READY;
            woken = true;
        }
    }
    return woken;
}

int run_block(int threads, int order, std::mt19937& random) {
    std::vector<int> turn(threads);
    for (int i = 0; i < threads; ++i) turn[i] = order == 1 ? threads - 1 - i : i;
    prepare(threads);
    for (;;) {
        if (order > 1) std::shuffle(turn.begin(), turn.end(), random);
        for (int i : turn) {
            if (fibers[i].state != READY) continue;
            running = i;
            thread_index = {(unsigned)i, 0, 0};
            swapcontext(&scheduler, &fibers[i].context);
        }
        const int done = count(DONE, threads);
        if (done == threads) return 0;
        if (wake_warps(threads)) continue;
        if (count(AT_BARRIER, threads) + done < threads) return 1;
        for (int i = 0; i < threads; ++i)
            if (fibers[i].state == AT_BARRIER) fibers[i].state = READY;
    }
}
}  // namespace

int lane() { return running % WARP; }

void wait_for_block() { wait(AT_BARRIER); }

uint64_t exchange(unsigned lanes, uint64_t value, int source) {
    Fiber& fiber = fibers[running];
    fiber.offered = value;
    fiber.lanes = lanes;
    wait(IN_WARP);
    const uint64_t taken = fibers[running / WARP * WARP + source].offered;
    wait(IN_WARP);  // before anyone offers the next value
    return taken;
}

int run(void (*body)(void**), void** arguments, Launch launch, char* shared, char* shared_end) {
    const int threads = (int)launch.threads;
    if ((int)fibers.size() < threads) fibers.resize(threads);
    entry = body;
    entry_arguments = arguments;
    block_size = {launch.threads, 1, 1};
    grid_size = {launch.blocks, 1, 1};
    std::mt19937 random(launch.order);
    for (unsigned block = 0; block < launch.blocks; ++block) {
        block_index = {block, 0, 0};
        if (shared) std::memset(shared, 0xff, shared_end - shared);
        if (run_block(threads, launch.order, random)) return 1;
    }
    return 0;
}
}  // namespace cushim
