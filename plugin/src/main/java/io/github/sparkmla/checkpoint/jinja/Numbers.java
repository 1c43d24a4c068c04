package io.github.sparkmla.checkpoint.jinja;

import java.math.BigDecimal;
import java.math.MathContext;
import java.math.RoundingMode;

/** Python's numbers: int as Long (more than 64 bits is refused), float as finite Double, bool as an int. */
final class Numbers {
    /** Integers up to here are exact as doubles. */
    private static final long EXACT = 1L << 53;

    private Numbers() {}

    static boolean isNumber(Object value) {
        return value instanceof Long || value instanceof Double || value instanceof Boolean;
    }

    static boolean isInt(Object value) {
        return value instanceof Long || value instanceof Boolean;
    }

    static long toLong(Object value) {
        return value instanceof Boolean flag ? (flag ? 1 : 0) : (Long) value;
    }

    static double toDouble(Object value) {
        return value instanceof Double number ? number : (double) toLong(value);
    }

    static int compare(Object left, Object right) {
        if (isInt(left) && isInt(right)) {
            return Long.compare(toLong(left), toLong(right));
        }
        return toDecimal(left).compareTo(toDecimal(right));
    }

    private static BigDecimal toDecimal(Object value) {
        return value instanceof Double number ? new BigDecimal(number) : BigDecimal.valueOf(toLong(value));
    }

    static double finite(double value) {
        if (Double.isNaN(value) || Double.isInfinite(value)) {
            throw JinjaException.unsupported("floats that are infinite or not a number");
        }
        return value;
    }

    /** {@code + - * / // % **} on two numbers. */
    static Object arithmetic(String operator, Object left, Object right) {
        if (isInt(left) && isInt(right)) {
            try {
                return ints(operator, toLong(left), toLong(right));
            } catch (ArithmeticException e) {
                throw JinjaException.unsupported("an integer result of more than 64 bits");
            }
        }
        double a = toDouble(left);
        double b = toDouble(right);
        return finite(
                switch (operator) {
                    case "+" -> a + b;
                    case "-" -> a - b;
                    case "*" -> a * b;
                    case "/" -> a / nonZero(b);
                    case "//" -> floorDivide(a, nonZero(b));
                    case "%" -> modulo(a, nonZero(b));
                    default -> power(a, b);
                });
    }

    private static Object ints(String operator, long a, long b) {
        return switch (operator) {
            case "+" -> Math.addExact(a, b);
            case "-" -> Math.subtractExact(a, b);
            case "*" -> Math.multiplyExact(a, b);
            case "/" -> divide(a, b);
            case "//" -> a == Long.MIN_VALUE && b == -1 ? Math.negateExact(a) : Math.floorDiv(a, nonZero(b));
            case "%" -> Math.floorMod(a, nonZero(b));
            default -> b < 0 ? (Object) power((double) a, (double) b) : (Object) power(a, b);
        };
    }

    private static double divide(long a, long b) {
        if (Math.abs(a) > EXACT || Math.abs(nonZero(b)) > EXACT || a == Long.MIN_VALUE || b == Long.MIN_VALUE) {
            throw JinjaException.unsupported("division of integers beyond 2**53");
        }
        return (double) a / (double) b;
    }

    private static long power(long base, long exponent) {
        if (Math.abs(base) <= 1 && exponent > 1) {
            return base == -1 ? (exponent % 2 == 0 ? 1 : -1) : base;
        }
        long result = 1;
        for (long i = 0; i < exponent; i++) {
            result = Math.multiplyExact(result, base);
        }
        return result;
    }

    /** Only powers that are exact: the last digit of others differs between mathematical libraries. */
    private static double power(double base, double exponent) {
        if (exponent == 0 || base == 1) {
            return 1;
        }
        if (exponent == 1) {
            return base;
        }
        if (base == 0 && exponent < 0) {
            throw JinjaException.error("0.0 cannot be raised to a negative power");
        }
        double result = Math.pow(base, exponent);
        boolean exact = exponent == 2
                || (base == Math.rint(base)
                        && exponent == Math.rint(exponent)
                        && exponent > 0
                        && Math.abs(result) < EXACT)
                || (base == 2 && exponent == Math.rint(exponent));
        if (!exact) {
            throw JinjaException.unsupported("powers that are not whole numbers");
        }
        return exponent == 2 ? base * base : result;
    }

    private static long nonZero(long value) {
        if (value == 0) {
            throw JinjaException.error("division by zero");
        }
        return value;
    }

    private static double nonZero(double value) {
        if (value == 0) {
            throw JinjaException.error("float division by zero");
        }
        return value;
    }

    private static double modulo(double a, double b) {
        double mod = a % b;
        if (mod == 0) {
            return Math.copySign(0.0, b);
        }
        return (b < 0) != (mod < 0) ? mod + b : mod;
    }

    private static double floorDivide(double a, double b) {
        double mod = a % b;
        double quotient = (a - mod) / b;
        if (mod != 0 && (b < 0) != (mod < 0)) {
            quotient -= 1;
        }
        if (quotient == 0) {
            return Math.copySign(0.0, a / b);
        }
        double floor = Math.floor(quotient);
        return quotient - floor > 0.5 ? floor + 1 : floor;
    }

    /** {@code round(value, digits)}: half to even on the exact value. */
    static Object round(Object value, int digits) {
        if (isInt(value)) {
            if (digits >= 0) {
                return toLong(value);
            }
            return BigDecimal.valueOf(toLong(value))
                    .setScale(Math.max(digits, -30), RoundingMode.HALF_EVEN)
                    .longValueExact();
        }
        double number = (Double) value;
        if (digits > 400) {
            return number;
        }
        double rounded = new BigDecimal(number)
                .setScale(Math.max(digits, -400), RoundingMode.HALF_EVEN)
                .doubleValue();
        return Math.copySign(finite(rounded), number);
    }

    /** {@code repr(float)}: the shortest digits that read back as the same value. */
    static String repr(double value) {
        if (value == 0) {
            return 1 / value < 0 ? "-0.0" : "0.0";
        }
        BigDecimal digits = shortest(Math.abs(value)).stripTrailingZeros();
        String text = digits.unscaledValue().toString();
        int point = text.length() - digits.scale();
        String sign = value < 0 ? "-" : "";
        if (point > 16 || point <= -4) {
            int exponent = point - 1;
            String fraction = text.length() > 1 ? "." + text.substring(1) : "";
            String power = (exponent < 0 ? "-" : "+") + (Math.abs(exponent) < 10 ? "0" : "") + Math.abs(exponent);
            return sign + text.charAt(0) + fraction + "e" + power;
        }
        if (point <= 0) {
            return sign + "0." + "0".repeat(-point) + text;
        }
        if (text.length() <= point) {
            return sign + text + "0".repeat(point - text.length()) + ".0";
        }
        return sign + text.substring(0, point) + "." + text.substring(point);
    }

    private static BigDecimal shortest(double value) {
        BigDecimal exact = new BigDecimal(value);
        for (int precision = 1; precision <= 17; precision++) {
            BigDecimal best = null;
            for (RoundingMode mode : new RoundingMode[] {RoundingMode.DOWN, RoundingMode.UP}) {
                BigDecimal candidate = exact.round(new MathContext(precision, mode));
                boolean same = candidate.doubleValue() == value;
                if (same && (best == null || distance(candidate, exact).compareTo(distance(best, exact)) < 0)) {
                    best = candidate;
                }
            }
            if (best != null) {
                return best;
            }
        }
        return exact;
    }

    private static BigDecimal distance(BigDecimal a, BigDecimal b) {
        return a.subtract(b).abs();
    }
}
