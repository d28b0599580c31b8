package interop;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** A program of this project in a process of its own: its lines, and its log in a file. */
final class Child implements AutoCloseable {
    final String name;
    private final Process process;
    private final Path log;
    private final Thread reader;

    /** Starts it; {@code onLine} gets each line it prints, on a thread of its own. */
    Child(String name, Path logs, Class<?> program, Consumer<String> onLine, String... args) throws IOException {
        this.name = name;
        log = logs.resolve(name + ".log");
        var java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
        var command = new ArrayList<>(List.of(java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m"));
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), program.getName()));
        command.addAll(Arrays.asList(args));
        process = new ProcessBuilder(command).redirectError(log.toFile()).start();
        reader = new Thread(() -> read(process.inputReader(), onLine), name);
        reader.setDaemon(true);
        reader.start();
    }

    private static void read(BufferedReader lines, Consumer<String> onLine) {
        lines.lines().forEach(onLine);
    }

    boolean isAlive() {
        return process.isAlive();
    }

    /** Ends its standard input. */
    void finish() throws IOException {
        process.getOutputStream().close();
    }

    /** Sends SIGTERM. By its handle: the process itself would close its streams too. */
    void terminate() {
        process.toHandle().destroy();
    }

    /** Waits until it has exited and everything it printed has been read. */
    boolean exited(long millis) throws InterruptedException {
        if (!process.waitFor(millis, TimeUnit.MILLISECONDS)) {
            return false;
        }
        reader.join();
        return true;
    }

    /** The last lines of its log. */
    String logTail() throws IOException {
        var lines = Files.readAllLines(log);
        return String.join("\n", lines.subList(Math.max(0, lines.size() - 40), lines.size()));
    }

    @Override
    public void close() throws InterruptedException {
        process.destroyForcibly().waitFor();
    }
}
