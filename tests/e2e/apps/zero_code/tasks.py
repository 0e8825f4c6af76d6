"""The service's work, as tasks of celery; the broker is a folder."""

import os

import celery
import service

folder = os.environ["BROKER"]
app = celery.Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": folder,
    "data_folder_out": folder,
    "control_folder": folder,
}


@app.task
def ask():
    return service.ask()
