package interop;

import java.util.HashMap;
import java.util.Map;
import java.util.Optional;

/** The arguments of a program: {@code --name value}, in any order. */
final class Options {
    private final Map<String, String> values = new HashMap<>();

    Options(String[] args) {
        if (args.length % 2 != 0) {
            throw new IllegalArgumentException("every option is --name value");
        }
        for (int i = 0; i < args.length; i += 2) {
            if (!args[i].startsWith("--")) {
                throw new IllegalArgumentException(args[i] + " is no option: write --name value");
            }
            values.put(args[i].substring(2), args[i + 1]);
        }
    }

    String required(String name) {
        return optional(name).orElseThrow(() -> new IllegalArgumentException("--" + name + " is missing"));
    }

    Optional<String> optional(String name) {
        return Optional.ofNullable(values.get(name));
    }

    Optional<Long> number(String name) {
        return optional(name).map(Long::parseLong);
    }
}
