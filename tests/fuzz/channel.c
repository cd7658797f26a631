/* channel.c - any bytes as a channel's header: what is accepted keeps slots and bulk area inside the region.
 */
#include "cafe_channel_check.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input input = {data, size};
    struct cafe_channel_header header;
    const uint64_t other = fuzz_word(&input);
    memset(&header, 0, sizeof header);
    fuzz_take(&input, &header, 64); /* its first line; the others say nothing about sizes */
    const uint64_t region_bytes = other % 2 == 0 ? header.region_bytes : other;
    const char *problem = cafe_channel_check(&header, region_bytes);
    if (problem != NULL) {
        FUZZ_NEED(problem[0] != 0);
        return 0;
    }
    const uint64_t bulk = cafe_channel_bulk(&header);
    FUZZ_NEED(header.slot_count >= 1 && header.slot_count <= CAFE_MAX_SLOTS);
    FUZZ_NEED(header.slot_bytes >= CAFE_MIN_SLOT_BYTES && header.slot_bytes % CAFE_PAGE == 0);
    FUZZ_NEED(CAFE_CHANNEL_HEADER_BYTES + header.slot_count * header.slot_bytes <= bulk);
    FUZZ_NEED(bulk <= region_bytes && header.bulk_bytes == region_bytes - bulk);
    return 0;
}
