package interop;

import java.io.IOException;

/** The end of standard input: whoever started this program wants it to stop, or is gone. */
final class StandardInput {
    private StandardInput() {}

    static Thread onEnd(Runnable then) {
        var reader = new Thread(() -> {
            try {
                System.in.transferTo(java.io.OutputStream.nullOutputStream());
            } catch (IOException broken) {
                // As good as its end.
            }
            then.run();
        }, "standard-input");
        reader.setDaemon(true);
        reader.start();
        return reader;
    }
}
