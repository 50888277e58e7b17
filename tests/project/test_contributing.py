"""CONTRIBUTING's walks through extensions: their Python is run as it stands, from outside the package."""

from pages import ROOT, blocks

import cyconv


def test_python_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    assert names["history"].complete and names["trainer"].step == 150

    class Writer(list):
        def add_scalar(self, name, value, step):
            self.append((name, value, step))

    writer = Writer()
    logger = names["TensorBoard"](writer)
    trainer = cyconv.CyclicTrainer(names["net"], names["Staircase"](), batch_size=50)
    history = trainer.fit(names["data"].train, names["data"].validation, log_every=75, callbacks=[logger])
    assert [step for name, _, step in writer if name == "acc_val"] == [0, 75, 150]
    assert [value for name, value, _ in writer if name == "acc_val"] == history["acc_val"].tolist()
