package interop;

/** The proof has failed, and this is why. */
final class Failure extends RuntimeException {
    private static final long serialVersionUID = 1;

    Failure(String why) {
        super(why);
    }
}
