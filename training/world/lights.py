"""Light: what it does to every colour, and which colours the sky has."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Light:
    """gain: of red, green, blue.  lift: added to them.  sky: top, middle, horizon.  stars: how bright."""

    name: str
    gain: tuple[float, float, float]
    lift: tuple[float, float, float]
    sky: tuple[str, str, str]
    stars: float = 0.0

    @property
    def near(self) -> "Light":
        """On whoever stands in front: halfway to daylight, so that a face keeps its colours at night."""
        gain, lift = (
            tuple((a + b) / 2 for a, b in zip(mine, day))
            for mine, day in ((self.gain, (1.0, 1.0, 1.0)), (self.lift, (0.0, 0.0, 0.0)))
        )
        return replace(self, gain=gain, lift=lift)

    def on(self, colour: tuple[float, float, float]) -> tuple[float, float, float]:
        """A colour in this light."""
        return tuple(c * g + l for c, g, l in zip(colour, self.gain, self.lift))


DAY = Light("day", (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ("4aa8e8", "86cdf3", "d8f1fa"))
DUSK = Light("dusk", (0.94, 0.76, 0.66), (0.05, 0.02, 0.03), ("5c4a93", "e0787c", "ffc98a"), stars=0.15)
NIGHT = Light("night", (0.45, 0.55, 0.80), (0.01, 0.02, 0.06), ("0d1538", "1d2a5c", "39488a"), stars=1.0)
LIGHTS = {light.name: light for light in (DAY, DUSK, NIGHT)}
