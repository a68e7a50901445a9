// Asks affectd for its health record ten times a second over a pseudo-terminal, and keeps the newest answer in a file:
//
//     ask LINK FILE
//
// LINK becomes a symbolic link to the terminal, for the output serial:LINK. FILE has one record, and none before the first.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static const char question[] = "health\n";
static const char answer[] = "{\"ok\":";

static void die(const char *what) {
    fprintf(stderr, "ask: %s: %s\n", what, strerror(errno));
    exit(1);
}

// Replaces the file at once, so that a reader gets the old record or the new one.
static void keep(const char *path, const char *record, size_t size) {
    char draft[256];
    snprintf(draft, sizeof draft, "%s.new", path);
    FILE *file = fopen(draft, "w");
    if (!file || fwrite(record, 1, size, file) != size || fclose(file) != 0 || rename(draft, path) != 0) die(path);
}

int main(int count, char **argument) {
    if (count != 3) {
        fprintf(stderr, "usage: ask LINK FILE\n");
        return 2;
    }
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0) die("pseudo-terminal");
    const char *name = ptsname(master);
    // It stays open, so that the terminal exists before and after affectd. Echo is off, because it would look like answers.
    int slave = open(name, O_RDWR | O_NOCTTY);
    struct termios settings;
    if (slave < 0 || tcgetattr(slave, &settings) < 0) die(name);
    cfmakeraw(&settings);
    if (tcsetattr(slave, TCSANOW, &settings) < 0 || chmod(name, 0666) < 0) die(name);
    unlink(argument[1]);
    if (symlink(name, argument[1]) < 0) die(argument[1]);

    char line[4096];
    size_t length = 0;
    for (;;) {
        // Unread questions must not fill the terminal's buffer.
        tcflush(slave, TCIFLUSH);
        if (write(master, question, sizeof question - 1) < 0) die("write");
        struct pollfd ready = {.fd = master, .events = POLLIN};
        struct timespec pause = {0, 100 * 1000 * 1000};
        nanosleep(&pause, NULL);
        while (poll(&ready, 1, 0) == 1) {
            char byte;
            if (read(master, &byte, 1) != 1) break;
            if (byte != '\n') {
                if (length < sizeof line) line[length++] = byte;
                continue;
            }
            if (length > sizeof answer && length < sizeof line && memcmp(line, answer, sizeof answer - 1) == 0)
                keep(argument[2], line, length);
            length = 0;
        }
    }
}
