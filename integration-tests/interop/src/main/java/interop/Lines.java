package interop;

/** Standard output, a line at a time, out of the hands of the program once printed. */
final class Lines {
    private Lines() {}

    static void print(String lines) {
        synchronized (System.out) {
            System.out.println(lines);
            System.out.flush();
        }
    }
}
