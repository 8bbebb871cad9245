"""How schedules and sensors start: as the environment and PETWELLNESS_AUTOMATION say."""

import dagster as dg

from petwellness_orchestration.settings import load_settings

_IS_ON = load_settings().has_automation

SCHEDULE_STATUS = dg.DefaultScheduleStatus.RUNNING if _IS_ON else dg.DefaultScheduleStatus.STOPPED
SENSOR_STATUS = dg.DefaultSensorStatus.RUNNING if _IS_ON else dg.DefaultSensorStatus.STOPPED
