/* The C reader of frames, for the target `wire`. Compiled once for each size of the buffer, with READ as the name of the function. */
#include "../../cross/readers/affectd_wire.h"

#include <stddef.h>

typedef void (*on_result)(void *to, int result, const affectd_wire_estimate *estimate, const uint8_t *text, size_t length);

/* Reads all bytes, and passes on every result except AFFECTD_WIRE_NOTHING. */
void READ(const uint8_t *bytes, size_t length, on_result pass_on, void *to) {
    affectd_wire_reader reader = {0};
    affectd_wire_estimate estimate;
    for (size_t i = 0; i < length; i++) {
        const affectd_wire_result result = affectd_wire_push(&reader, bytes[i], &estimate);
        if (result == AFFECTD_WIRE_TEXT) {
            pass_on(to, result, NULL, (const uint8_t *)reader.text, reader.text_length);
        } else if (result != AFFECTD_WIRE_NOTHING) {
            pass_on(to, result, result == AFFECTD_WIRE_ESTIMATE ? &estimate : NULL, NULL, 0);
        }
    }
}
