// A cheap USB webcam with a microphone, for the kernel's own drivers: uvcvideo and snd-usb-audio see it through vhci-hcd, the
// kernel's end of USB/IP. It plays a clip until it is killed, which pulls its cable, in the middle of a transfer:
//
//     webcam VIDEO AUDIO [OPTION…]
//
//     VIDEO          JPEG images of 640x480, one after the other
//     AUDIO          mono 16-bit samples at 48 kHz
//     rate=HZ        images per second; it always claims 30
//     drift=PPM      how much faster than the host's its sound clock is
//     torn=N         every Nth image ends in the middle
//     empty=N        every Nth image has no bytes
//     silent=1       it accepts the mode of 640x480 and sends no image in it; 320x240 works
//     refuse=1       the mode of 640x480 gets no bandwidth; 320x240 works
//
// The protocol is in the kernel's Documentation/usb/usbip_protocol.rst, the descriptors in the USB Video Class 1.0 and USB Audio
// Class 1.0 specifications.
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    VIDEO_PACKET = 1024, // bytes of video, and of sound, in a millisecond at most
    AUDIO_PACKET = 104,
    AUDIO_RATE = 48000,
    MAX_IMAGES = 1000,
    MAX_IMAGE = 200000, // bytes
    MAX_URBS = 64,
    MAX_PACKETS = 256,
};

#define W(n) (n) & 255, (n) >> 8 & 255
#define D(n) W(n), (n) >> 16 & 255, (n) >> 24 & 255

static const uint8_t device[] = {18, 1, W(0x200), 0xef, 2, 1, 64, W(0x1209), W(0x0001), W(0x100), 1, 2, 3, 1};

#define FRAME_INTERVALS D(333333), D(666666), D(1000000) // 30, 15 and 10 Hz, in units of 100 ns
#define FRAME(index, width, height)                                                                                                \
    38, 0x24, 7, index, 0, W(width), W(height), D(1000000), D(40000000), D(MAX_IMAGE), D(333333), 3, FRAME_INTERVALS

#define CONTROL_LENGTH (13 + 18 + 9)
#define STREAM_LENGTH (14 + 11 + 38 + 38)
#define SOUND_LENGTH (9 + 12 + 9)

static uint8_t configuration[] = {
    9, 2, W(0), 4, 1, 0, 0x80, 250,
    // Video: control interface 0, streaming interface 1.
    8, 0x0b, 0, 2, 0x0e, 3, 0, 0,
    9, 4, 0, 0, 0, 0x0e, 1, 0, 0,
    13, 0x24, 1, W(0x100), W(CONTROL_LENGTH), D(48000000), 1, 1,
    18, 0x24, 2, 1, W(0x201), 0, 0, W(0), W(0), W(0), 3, 0, 0, 0,
    9, 0x24, 3, 2, W(0x101), 0, 1, 0,
    9, 4, 1, 0, 0, 0x0e, 2, 0, 0,
    14, 0x24, 1, 1, W(STREAM_LENGTH), 0x81, 0, 2, 0, 0, 0, 1, 0,
    11, 0x24, 6, 1, 2, 1, 1, 0, 0, 0, 0,
    FRAME(1, 640, 480),
    FRAME(2, 320, 240),
    9, 4, 1, 1, 1, 0x0e, 2, 0, 0,
    7, 5, 0x81, 5, W(VIDEO_PACKET), 4,
    // Sound: control interface 2, streaming interface 3.
    8, 0x0b, 2, 2, 1, 0, 0, 0,
    9, 4, 2, 0, 0, 1, 1, 0, 0,
    9, 0x24, 1, W(0x100), W(SOUND_LENGTH), 1, 3,
    12, 0x24, 2, 1, W(0x201), 0, 1, W(0), 0, 0,
    9, 0x24, 3, 2, W(0x101), 0, 1, 0,
    9, 4, 3, 0, 0, 1, 2, 0, 0,
    9, 4, 3, 1, 1, 1, 2, 0, 0,
    7, 0x24, 1, 2, 1, W(1),
    11, 0x24, 2, 1, 1, 2, 16, 1, AUDIO_RATE & 255, AUDIO_RATE >> 8 & 255, 0,
    9, 5, 0x82, 5, W(AUDIO_PACKET), 4, 0, 0,
    7, 0x25, 1, 0, 0, W(0),
};

struct header { // of each message, in network byte order
    uint32_t command, seqnum, devid, direction, endpoint;
    union {
        struct {
            uint32_t flags, length, start_frame, packets, interval;
            uint8_t setup[8];
        } submit;
        struct {
            uint32_t status, length, start_frame, packets, errors, padding[2];
        } answer;
        uint32_t unlinked;
    };
};
_Static_assert(sizeof(struct header) == 48, "a header has 48 bytes");

struct packet {
    uint32_t offset, length, actual, status;
};

struct urb {
    uint32_t seqnum, packets, length;
    struct packet packet[MAX_PACKETS];
    double due; // when its last packet is complete
};

// An isochronous endpoint: a packet in each millisecond.
struct stream {
    int is_video;
    int alternate;
    struct urb urbs[MAX_URBS];
    size_t count;
    double until; // when the last packet of the last request is complete
};

static struct { const uint8_t *bytes; size_t size; } images[MAX_IMAGES];
static size_t image_count;
static const uint8_t *sound;
static size_t sound_size;
static double rate = 30, drift;
static double began; // time 0 of picture and sound
static long torn, empty, silent, refuse;

static struct stream video = {.is_video = 1}, audio;
static uint8_t probe[26] = {0, 0, 1, 1, D(333333)};
static int wire;

static void die(const char *what) {
    fprintf(stderr, "webcam: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static const uint8_t *map(const char *path, size_t *size) {
    struct stat info;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &info) < 0) die(path);
    void *bytes = mmap(NULL, info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) die(path);
    *size = info.st_size;
    return bytes;
}

static void receive(void *to, size_t size) {
    for (uint8_t *at = to; size > 0;) {
        ssize_t got = read(wire, at, size);
        if (got <= 0) exit(0);
        at += got, size -= got;
    }
}

static void transmit(const void *from, size_t size) {
    for (const uint8_t *at = from; size > 0;) {
        ssize_t sent = write(wire, at, size);
        if (sent <= 0) exit(0);
        at += sent, size -= sent;
    }
}

static void answer(uint32_t seqnum, int status, const void *data, uint32_t length, uint32_t packets) {
    struct header out = {.command = htobe32(3), .seqnum = htobe32(seqnum)};
    out.answer.status = htobe32((uint32_t)status);
    out.answer.length = htobe32(length);
    out.answer.packets = htobe32(packets);
    transmit(&out, sizeof out);
    if (data) transmit(data, length);
}

// The mode that the host has chosen, 1 or 2.
static int mode(void) { return probe[3]; }

// Fills one packet with the video of the millisecond that ends at `at`. Returns its size.
static uint32_t video_packet(uint8_t *out, uint32_t room, double at) {
    static long number = -1;  // of the image that was begun last
    static size_t sent, size; // of this image
    static uint8_t frame_id;
    static int sending;
    if (silent && mode() == 1) return 0;
    long due = (at - began) * rate;
    if (!sending && due != number) {
        number = due;
        frame_id ^= 1, sent = 0, sending = 1;
        size = images[number % image_count].size;
        if (torn && number % torn == 0) size /= 2;
        if (empty && number % empty == 0) size = 0;
    }
    out[0] = 2;
    out[1] = 0x80 | frame_id;
    if (!sending) return 2;
    uint32_t part = size - sent < room - 2 ? size - sent : room - 2;
    memcpy(out + 2, images[number % image_count].bytes + sent, part);
    sent += part;
    if (sent == size) out[1] |= 2, sending = 0;
    return part + 2;
}

// Fills one packet with the sound of the millisecond that ends at `at`. A clock that is too fast takes more samples of the same sound.
static uint32_t audio_packet(uint8_t *out, uint32_t room, double at) {
    double speed = 1 + drift * 1e-6, samples_per_s = AUDIO_RATE * speed;
    uint64_t end = (at - began) * samples_per_s;
    uint32_t length = 0;
    for (uint64_t n = (at - 0.001 - began) * samples_per_s; n < end && length + 2 <= room; n++, length += 2)
        memcpy(out + length, sound + (uint64_t)(n / speed) * 2 % sound_size, 2);
    return length;
}

static void complete(struct stream *stream) {
    static uint8_t data[MAX_PACKETS * VIDEO_PACKET];
    struct urb *urb = &stream->urbs[0];
    uint32_t length = 0;
    for (uint32_t i = 0; i < urb->packets; i++) {
        struct packet *packet = &urb->packet[i];
        uint32_t room = be32toh(packet->length);
        double at = urb->due - (urb->packets - 1 - i) / 1000.0;
        if (room > VIDEO_PACKET) room = VIDEO_PACKET;
        uint32_t size = stream->is_video ? video_packet(data + length, room, at) : audio_packet(data + length, room, at);
        packet->actual = htobe32(size);
        packet->status = 0;
        length += size;
    }
    answer(urb->seqnum, 0, data, length, urb->packets);
    transmit(urb->packet, urb->packets * sizeof *urb->packet);
    memmove(urb, urb + 1, --stream->count * sizeof *urb);
}

static void submit_isochronous(struct stream *stream, uint32_t seqnum, const struct header *in) {
    struct urb urb = {.seqnum = seqnum, .packets = be32toh(in->submit.packets)};
    if (urb.packets > MAX_PACKETS || stream->count == MAX_URBS) {
        fprintf(stderr, "webcam: %u packets, %zu requests: too many\n", urb.packets, stream->count);
        exit(1);
    }
    receive(urb.packet, urb.packets * sizeof *urb.packet);
    double from = stream->until > now() ? stream->until : now();
    urb.due = stream->until = from + urb.packets / 1000.0;
    stream->urbs[stream->count++] = urb;
}

static void string_descriptor(const char *text, uint8_t *out, uint32_t *length) {
    *length = 2 + 2 * strlen(text);
    out[0] = *length, out[1] = 3;
    for (size_t i = 0; text[i]; i++) out[2 + 2 * i] = text[i], out[3 + 2 * i] = 0;
}

static void control(uint32_t seqnum, const struct header *in) {
    const uint8_t *setup = in->submit.setup;
    uint8_t type = setup[0], request = setup[1], data[512] = {0};
    uint16_t value = setup[2] | setup[3] << 8, index = setup[4] | setup[5] << 8, wanted = setup[6] | setup[7] << 8;
    uint32_t length = 0;
    if (!(type & 0x80) && wanted > 0) receive(data, wanted < sizeof data ? wanted : sizeof data);
    if (type == 0x80 && request == 6) { // GET_DESCRIPTOR
        static const char *const strings[] = {"affectd bench", "Cheap Webcam", "0001"};
        uint8_t number = value & 255;
        if (value >> 8 == 1) memcpy(data, device, length = sizeof device);
        else if (value >> 8 == 2) memcpy(data, configuration, length = sizeof configuration);
        else if (value == 0x300) memcpy(data, (uint8_t[]){4, 3, W(0x409)}, length = 4);
        else if (value >> 8 == 3 && number <= 3) string_descriptor(strings[number - 1], data, &length);
        else return answer(seqnum, -EPIPE, NULL, 0, 0);
    } else if (type == 1 && request == 11) { // SET_INTERFACE
        struct stream *stream = index == 1 ? &video : &audio;
        if (index == 1 && value == 1 && refuse && mode() == 1) return answer(seqnum, -ENOSPC, NULL, 0, 0);
        stream->alternate = value;
    } else if (type == 0x21 && request == 1 && index == 1) { // SET_CUR of probe and commit
        memcpy(probe, data, sizeof probe);
        if (probe[2] != 1) probe[2] = 1;
        if (probe[3] < 1 || probe[3] > 2) probe[3] = 1;
    } else if (type == 0xa1 && index == 1) { // GET_CUR and the like
        memcpy(data, probe, length = sizeof probe);
        memcpy(data + 18, (uint8_t[]){D(MAX_IMAGE), D(VIDEO_PACKET)}, 8);
        if (request == 0x85) memcpy(data, (uint8_t[]){W(26)}, length = 2);
        if (request == 0x86) data[0] = 3, length = 1;
    } else if (type == 0x80 || type == 0x81 || type == 0x82) { // GET_STATUS and the like
        length = wanted;
    } else if (type & 0x60) {
        return answer(seqnum, -EPIPE, NULL, 0, 0);
    }
    if (length > wanted) length = wanted;
    if (type & 0x80) answer(seqnum, 0, data, length, 0);
    else answer(seqnum, 0, NULL, wanted, 0);
}

static int unlink_from(struct stream *stream, uint32_t seqnum) {
    for (size_t i = 0; i < stream->count; i++) {
        if (stream->urbs[i].seqnum != seqnum) continue;
        memmove(&stream->urbs[i], &stream->urbs[i + 1], (--stream->count - i) * sizeof *stream->urbs);
        return 1;
    }
    return 0;
}

static void message(void) {
    struct header in;
    receive(&in, sizeof in);
    uint32_t seqnum = be32toh(in.seqnum), endpoint = be32toh(in.endpoint);
    if (be32toh(in.command) == 2) {
        uint32_t unlinked = be32toh(in.unlinked);
        int found = unlink_from(&video, unlinked) || unlink_from(&audio, unlinked);
        struct header out = {.command = htobe32(4), .seqnum = htobe32(seqnum)};
        out.answer.status = htobe32(found ? (uint32_t)-ECONNRESET : 0);
        transmit(&out, sizeof out);
    } else if (endpoint == 0) {
        control(seqnum, &in);
    } else {
        submit_isochronous(endpoint == 1 ? &video : &audio, seqnum, &in);
    }
}

static void plug_in(void) {
    int ends[2];
    char text[64];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0) die("socketpair");
    wire = ends[0];
    int size = snprintf(text, sizeof text, "0 %d 65538 3", ends[1]); // port, socket, device, high speed
    int attach = open("/sys/devices/platform/vhci_hcd.0/attach", O_WRONLY);
    // The port of a webcam that was just unplugged is free a moment later.
    for (int tries = 100; attach < 0 || write(attach, text, size) < 0; tries--) {
        if (attach < 0 || tries == 0) die("vhci_hcd");
        usleep(20000);
    }
    close(attach);
    close(ends[1]);
}

int main(int count, char **arguments) {
    if (count < 3) {
        fprintf(stderr, "usage: webcam VIDEO AUDIO [OPTION…]\n");
        return 2;
    }
    for (int i = 3; i < count; i++) {
        char *value = strchr(arguments[i], '=');
        struct { const char *name; long *number; } options[] = {{"torn", &torn}, {"empty", &empty}, {"silent", &silent}, {"refuse", &refuse}};
        int known = 0;
        if (value) *value++ = 0;
        for (size_t n = 0; value && n < 4; n++)
            if (strcmp(options[n].name, arguments[i]) == 0) *options[n].number = atol(value), known = 1;
        if (value && strcmp(arguments[i], "rate") == 0) rate = atof(value), known = 1;
        if (value && strcmp(arguments[i], "drift") == 0) drift = atof(value), known = 1;
        if (!known) {
            fprintf(stderr, "webcam: %s: no such option\n", arguments[i]);
            return 2;
        }
    }
    size_t size, start = 0;
    const uint8_t *bytes = map(arguments[1], &size);
    for (size_t i = 2; i <= size && image_count < MAX_IMAGES; i++) {
        if (i < size && !(bytes[i] == 0xff && i + 2 < size && bytes[i + 1] == 0xd8 && bytes[i + 2] == 0xff)) continue;
        images[image_count].bytes = bytes + start;
        images[image_count++].size = i - start;
        start = i;
    }
    sound = map(arguments[2], &sound_size);
    configuration[2] = sizeof configuration & 255, configuration[3] = sizeof configuration >> 8;
    // Before all other processes, as the hardware of a USB host would be: a late answer would lose sound.
    if (sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 50}) < 0) die("SCHED_FIFO");
    plug_in();
    began = now();
    for (;;) {
        double due = 1e9;
        struct stream *first = NULL;
        for (int i = 0; i < 2; i++) {
            struct stream *stream = i ? &audio : &video;
            if (stream->count > 0 && stream->urbs[0].due < due) due = stream->urbs[0].due, first = stream;
        }
        double wait = due - now();
        if (first && wait <= 0) {
            complete(first);
            continue;
        }
        struct pollfd ready = {.fd = wire, .events = POLLIN};
        struct timespec timeout = {(time_t)wait, (long)((wait - (time_t)wait) * 1e9)};
        if (ppoll(&ready, 1, first ? &timeout : NULL, NULL) > 0) message();
    }
}
