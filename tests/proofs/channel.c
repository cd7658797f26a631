/* channel.c - what libcafe accepts as a channel's header: every slot and the bulk area lie in the file. */
#include "proof.h"
#include "cafe_channel_check.h"

__attribute__((unused)) static void make_header(struct cafe_channel_header *header) {
    *header = (struct cafe_channel_header){.magic = CAFE_CHANNEL_MAGIC,
                                           .abi_version = CAFE_ABI_VERSION,
                                           .slot_count = 4,
                                           .slot_bytes = 65536,
                                           .bulk_bytes = CAFE_BULK_ALIGN,
                                           .region_bytes = 2 * CAFE_BULK_ALIGN};
}

void prove_channel_slots(void) {
    struct cafe_channel_header header;
    const uint64_t region_bytes = proof_any() % 2 == 0 ? proof_any() : 2 * CAFE_BULK_ALIGN,
                   slot = proof_any();
    proof_any_struct(&header, make_header);
    PROOF_ASSUME(cafe_channel_check(&header, region_bytes) == NULL);
    PROOF_HOLDS(header.slot_count >= 1 && header.slot_count <= CAFE_MAX_SLOTS);
    PROOF_HOLDS(header.slot_bytes >= CAFE_MIN_SLOT_BYTES && header.slot_bytes <= CAFE_MAX_SLOT_BYTES);
    PROOF_HOLDS(header.region_bytes == region_bytes);
    PROOF_ASSUME(slot < header.slot_count);
    PROOF_HOLDS(CAFE_CHANNEL_HEADER_BYTES + (slot + 1) * header.slot_bytes <= region_bytes);
}

void prove_channel_bulk(void) {
    struct cafe_channel_header header;
    const uint64_t region_bytes = proof_any() % 2 == 0 ? proof_any() : 2 * CAFE_BULK_ALIGN;
    proof_any_struct(&header, make_header);
    PROOF_ASSUME(cafe_channel_check(&header, region_bytes) == NULL);
    const uint64_t slots_end = CAFE_CHANNEL_HEADER_BYTES + header.slot_count * header.slot_bytes;
    const uint64_t bulk = cafe_channel_bulk(&header);
    PROOF_HOLDS(bulk >= slots_end);
    PROOF_HOLDS(bulk - slots_end < CAFE_BULK_ALIGN);
    PROOF_HOLDS(bulk <= region_bytes);
    PROOF_HOLDS(region_bytes - bulk == header.bulk_bytes);
    PROOF_HOLDS(header.bulk_bytes <= CAFE_MAX_BULK_BYTES);
}

PROOF_HARNESSES({"prove_channel_slots", prove_channel_slots}, {"prove_channel_bulk", prove_channel_bulk});
