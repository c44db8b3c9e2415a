"""What the page asks the pack's routes while a script is written."""

from pack.dev.comfyui.server import Server

ROUTE, FILM_ROUTE = "/skyreels_v3/script", "/skyreels_v3/film"
BAD = "continue 5s: The rabbit looks up.\ncut 9s: [ZOOM_IN_CUT] Its face.\ncontinue 2s: It yawns."


def test_the_route_answers_what_it_is_asked(stocked_server: Server):
    answer = stocked_server.post(ROUTE, {"text": BAD, "official": False, "model": True, "shot_model": True})
    assert answer.ok and [bool(line["wrong"]) for line in answer.json()["lines"]] == [False, True, False]
    assert (
        "nothing is connected to model"
        in stocked_server.post(f"/api{ROUTE}", {"text": "x", "model": False}).json()["problem"]
    )
    for wrong in ({}, [], {"text": 5}, {"text": None}, "x"):
        for route in (ROUTE, FILM_ROUTE):
            answer = stocked_server.post(route, wrong)
            assert answer.status_code == 400 and "text of a script" in answer.json()["error"]
    asked = {"text": "scene [anna]: x\nspeak [anna]: y", "cast": {"Anna": False}, "connected": ["reference_model"]}
    first, second = stocked_server.post(FILM_ROUTE, asked).json()["lines"]
    assert first["wrong"] is None and "avatar_model" in second["wrong"]
    shot = {"number": 1, "takes": [{"take": 1, "chosen": True}], "state": "done", "seconds": 5.0}
    last = {"script": "scene [anna]: x", "settings": {"seed": 1}, "shots": [shot]}
    first, _ = stocked_server.post(FILM_ROUTE, {**asked, "settings": {"seed": 1}, "last": last}).json()["lines"]
    assert first["state"] == "done"
    for wrong in (5, {}, {**last, "shots": [5]}, {**last, "settings": {"seed": "x"}}):
        assert stocked_server.post(FILM_ROUTE, {**asked, "last": wrong}).status_code == 400
    edit = {"line": 2, "option": "seed", "value": "5"}
    assert stocked_server.post(FILM_ROUTE, {**asked, "edit": edit}).json()["text"].endswith("{seed 5}: y")
