/* A lamp on pin 9 that comes on when the person in front of the board has looked or sounded unhappy for five seconds, and goes
 * off when that is over, or when nothing has arrived for three seconds.
 *
 * Copy affectd_wire.h into the folder of this sketch. The board sends with output = ["serial:/dev/ttyAMA0?baud=115200&wire=frame"].
 * Connect its TX to RX of the Arduino, and ground to ground. On an Arduino with a second serial port (Mega, Leonardo) this is RX1,
 * and on others RX: unplug the wire there while you upload. Licence: MIT or Apache-2.0, as affectd.
 */
#include "affectd_wire.h"

#ifdef HAVE_HWSERIAL1
#define BOARD Serial1
#else
#define BOARD Serial
#endif

static const uint8_t LAMP = 9;               // a pin with PWM
static const int16_t LOW_VALENCE = -2000;    // ten-thousandths: -0.2
static const int16_t NORMAL_VALENCE = -1000; // the lamp goes off above this, so that it does not flicker
static const int16_t LEAST_CONFIDENCE = 1000;
static const uint32_t LOW_FOR_MS = 5000;
static const uint32_t SILENT_AFTER_MS = 3000;

static affectd_wire_reader reader;
static uint32_t arrived_ms;    // when the last estimate arrived
static uint32_t low_since_ms;  // when the valence became low
static bool low = false;

static void on_estimate(const affectd_wire_estimate &estimate) {
    arrived_ms = millis();
    const bool known = estimate.valence != AFFECTD_WIRE_UNKNOWN && estimate.confidence >= LEAST_CONFIDENCE;
    if (known && estimate.valence < LOW_VALENCE) {
        if (!low) {
            low_since_ms = arrived_ms;
        }
        low = true;
    } else if (!known || estimate.valence > NORMAL_VALENCE) {
        low = false;
    }
}

void setup() {
    pinMode(LAMP, OUTPUT);
    BOARD.begin(115200);
}

void loop() {
    affectd_wire_estimate estimate;
    while (BOARD.available() > 0) {
        if (affectd_wire_push(&reader, (uint8_t)BOARD.read(), &estimate) == AFFECTD_WIRE_ESTIMATE) {
            on_estimate(estimate);
        }
    }
    const uint32_t now = millis();
    if (now - arrived_ms > SILENT_AFTER_MS) {
        low = false;
    }
    analogWrite(LAMP, low && now - low_since_ms >= LOW_FOR_MS ? 255 : 0);
}
