#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

extern "C" uint64_t count_cxx(uint32_t lock, uint32_t rounds, uint64_t *counter);
extern "C" uint32_t once_cxx();

namespace {

std::mutex plain;
std::recursive_mutex recursive;
std::shared_ptr<int> everybodys = std::make_shared<int>(1);
uint32_t made;

struct Costly {
    Costly() {
        for (volatile int i = 0; i < 1000; i = i + 1)
            continue;
        made++;
    }
};

void share(uint32_t rounds) {
    for (uint32_t i = 0; i < rounds; i++) {
        std::shared_ptr<int> mine = everybodys;
        mine.reset();
    }
}

} // namespace

uint64_t count_cxx(uint32_t lock, uint32_t rounds, uint64_t *counter) {
    if (lock == 5) { // reference counts of a shared_ptr must be atomic here
        share(rounds);
        return static_cast<uint64_t>(everybodys.use_count());
    }
    for (uint32_t i = 0; i < rounds; i++) {
        if (lock == 3) {
            std::lock_guard<std::mutex> held(plain);
            *counter = *counter + 1;
        } else {
            std::lock_guard<std::recursive_mutex> outer(recursive);
            std::lock_guard<std::recursive_mutex> inner(recursive);
            *counter = *counter + 1;
        }
    }
    return *counter;
}

uint32_t once_cxx() {
    static Costly costly;
    static std::once_flag flag;
    std::call_once(flag, [] { made += 10; });
    return made;
}
