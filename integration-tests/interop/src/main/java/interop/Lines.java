package interop;

import java.time.Instant;
import java.time.temporal.ChronoUnit;

/** Standard output, a line at a time, out of the hands of the program once printed. */
final class Lines {
    /** Each line begins with the time, in microseconds of the epoch. */
    static volatile boolean stamped;

    private Lines() {}

    static void print(String lines) {
        synchronized (System.out) {
            if (stamped) {
                long now = ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());
                lines.lines().forEach(line -> System.out.println(now + " " + line));
            } else {
                System.out.println(lines);
            }
            System.out.flush();
        }
    }
}
