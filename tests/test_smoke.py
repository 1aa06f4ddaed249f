from tests.support.archives import tar_gz, upload_headers, sha256

def test_cycle(service):
    ada, bob = service.instructor(), service.student()
    body = tar_gz(p1=b"{}")
    for path in ("", "healthz", "readyz", "metrics"):
        r = ada.get(path); print(path, r.status_code, r.text[:200])
    r = ada.post("assignment", body, upload_headers(body, "k1"), course_id="physics", assignment_id="ps1"); print(r.status_code, r.text)
    r = bob.get("assignments", course_id="physics"); print(r.status_code, r.text)
    r = bob.get("assignment", course_id="physics", assignment_id="ps1"); print(r.status_code, r.headers); assert r.content == body
    r = bob.post("submission", body, upload_headers(body, "k1"), course_id="physics", assignment_id="ps1"); print(r.status_code, r.text)
    sub = r.json()
    r = ada.get("collections", course_id="physics", assignment_id="ps1"); print(r.status_code, r.text)
    r = ada.get("collection", course_id="physics", assignment_id="ps1", path=r.json()["value"][0]["path"]); assert r.content == body
    r = ada.post("feedback", b"<html>", upload_headers(b"<html>"), course_id="physics", assignment_id="ps1", notebook="p1", submission_id=sub["submission_id"]); print(r.status_code, r.text)
    r = bob.get("feedback", course_id="physics", assignment_id="ps1"); print(r.status_code, r.text)
    r = bob.get("assignments"); print(r.status_code, r.text)
    r = ada.get("history"); print(r.status_code, r.text)
    r = ada.delete("assignment", course_id="physics", assignment_id="ps1"); print(r.status_code, r.text)
    r = ada.delete("assignment", course_id="physics", assignment_id="ps1", purge="yes"); print(r.status_code, r.text)
    assert service.files() == []
