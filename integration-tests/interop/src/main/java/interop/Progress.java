package interop;

import java.util.ArrayList;
import java.util.List;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;

/** Waits for conditions, all of them until one deadline, and no longer than every program runs. */
final class Progress {
    private final long begun = System.nanoTime();
    private final long deadline;
    private final List<Child> running = new ArrayList<>();

    Progress(long seconds) {
        deadline = begun + seconds * 1_000_000_000L;
    }

    /** From now on this program must not end by itself. */
    synchronized void expect(Child child) {
        running.add(child);
    }

    synchronized void release(Child child) {
        running.remove(child);
    }

    /** Something has happened: whoever waits looks again. */
    synchronized void changed() {
        notifyAll();
    }

    void await(String what, BooleanSupplier condition) throws InterruptedException {
        await(() -> what, condition);
    }

    /** {@code what} is asked for when the wait is over, well or not. */
    synchronized void await(Supplier<String> what, BooleanSupplier condition) throws InterruptedException {
        while (!condition.getAsBoolean()) {
            long left = left();
            if (left <= 0) {
                throw new Failure("the time is over; still waited for: " + what.get());
            }
            for (var child : running) {
                if (!child.isAlive()) {
                    throw new Failure(child.name + " ended by itself; still waited for: " + what.get());
                }
            }
            // A program that ends says nothing: it is looked for.
            wait(Math.min(left, 250));
        }
        reached(what.get());
    }

    /** Says what has been reached, and when. */
    void reached(String what) {
        System.out.printf("%4d s  %s%n", (System.nanoTime() - begun) / 1_000_000_000L, what);
    }

    /** Milliseconds until the deadline. */
    long left() {
        return (deadline - System.nanoTime()) / 1_000_000;
    }
}
